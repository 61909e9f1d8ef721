/**
 * An NTFS volume, read, and the patches that change file data in place.
 *
 * - Data is read where it lies: in the record, in runs, across records; what was never written reads as zeros.
 * - Compressed and encrypted files, and those that Windows has compressed for itself (CompactOS), are refused with the reason.
 * - A patch changes bytes of data that are on the disk already. Data inside a file record is put back under the record's protection.
 *   A file may become longer as far as its own last clusters go: then its record says so too. Nothing else of the metadata changes.
 */
import { UnsupportedError, UsageError } from '../../base/errors.ts';
import { viewOf } from '../../bytes/view.ts';
import type { Disk } from '../../disk/disk.ts';
import { memoryDisk } from '../../disk/memory.ts';
import { changedRuns } from '../edit/changed-runs.ts';
import { replaceInPlace, type EditableFileSystem, type NodeEdit } from '../edit/editable.ts';
import type { Patch } from '../edit/patch.ts';
import type { FolderEntry, NodeId, NodeStat } from '../file-system.ts';
import { piecesDisk, type FilePiece } from '../pieces.ts';
import { addFiles, type AddedFiles, type NewFile } from './add-files.ts';
import { Folders } from './folders.ts';
import { withFixups } from './fixups.ts';
import { isBitLocker, isNtfs, readGeometry, type Geometry } from './geometry.ts';
import {
  attributeFlags,
  attributeTypes,
  maxPathDepth,
  nonResidentHeader,
  recordFlags,
  recordNumbers,
} from './layout.ts';
import { Records, wrong, type Attribute } from './records.ts';
import { linkTarget, reparseTagOf, reparseTags } from './reparse.ts';
import { statOf } from './stat.ts';
import { readState, type VolumeState } from './state.ts';

export class NtfsVolume implements EditableFileSystem {
  readonly kind = 'ntfs';
  readonly paths = 'windows';
  readonly uuid: string;
  readonly label: string;
  readonly warnings: readonly string[];
  readonly root = BigInt(recordNumbers.root);
  readonly geometry: Geometry;
  readonly state: VolumeState;
  readonly #disk: Disk;
  readonly #records: Records;
  readonly #folders: Folders;

  /** @throws FormatError when it is no NTFS volume, or one whose MFT cannot be read */
  constructor(disk: Disk) {
    this.#disk = disk;
    this.geometry = readGeometry(disk);
    this.#records = new Records(disk, this.geometry);
    this.#folders = new Folders(disk, this.geometry, this.#records);
    this.uuid = this.geometry.serial.toString(16).toUpperCase().padStart(16, '0');
    const label = this.#records.attribute(recordNumbers.volume, attributeTypes.volumeName, '')?.value;
    this.label = label === undefined ? '' : Buffer.from(label).toString('utf16le');
    this.state = readState(disk, this.geometry, this.#records);
    this.warnings = warningsOf(this.state);
  }

  stat(node: NodeId): NodeStat {
    return statOf(this.#records, Number(node));
  }

  lookup(folder: NodeId, name: string): NodeId | undefined {
    const record = this.#folders.find(Number(folder), name);
    return record === undefined ? undefined : BigInt(record);
  }

  /** Without the files that NTFS itself is made of, which Windows does not show either. They are found by their names. */
  entries(folder: NodeId): FolderEntry[] {
    return this.#folders
      .entries(Number(folder))
      .filter(({ record }) => record >= recordNumbers.firstOfUsers)
      .map(({ name, record }) => ({ name, node: BigInt(record) }));
  }

  open(node: NodeId): Disk {
    const data = this.#data(node);
    if (data.value !== undefined) return memoryDisk(data.value);
    const last = data.runs.at(-1);
    const clusters = last === undefined ? 0 : last.first + last.count;
    if (clusters * this.geometry.clusterBytes < data.sizeBytes)
      throw wrong(Number(node), 'runs', `hold ${clusters} clusters, for ${data.sizeBytes} bytes`);
    // What was never written reads as zeros, whatever the clusters hold.
    const pieces = this.#pieces(data, Math.min(data.sizeBytes, data.initializedBytes));
    return piecesDisk(this.#disk, data.sizeBytes, pieces);
  }

  /** As Windows shows it: `C:\\Users`. */
  readLink(node: NodeId): string {
    return linkTarget(this.#records, Number(node));
  }

  locate(node: NodeId, path: string): readonly FilePiece[] {
    const data = this.#data(node, path);
    if (data.value !== undefined) throw new UnsupportedError(`${path}: its data lies inside a file record`);
    return this.#pieces(data, Math.min(data.sizeBytes, data.initializedBytes));
  }

  roomOf(node: NodeId, path: string): number {
    const data = this.#data(node, path);
    const fixed =
      data.value !== undefined ||
      data.initializedBytes !== data.sizeBytes ||
      (data.flags & attributeFlags.sparse) !== 0;
    return fixed ? data.sizeBytes : data.allocatedBytes;
  }

  replace(edits: readonly NodeEdit[]): Patch[] {
    const patches: Patch[] = [];
    /** Records that change, as they are meant. */
    const records = new Map<number, Uint8Array>();
    const lengths = new Map<NodeId, number>();
    for (const edit of edits) {
      const data = this.#data(edit.node, edit.path);
      const end = edit.fileOffset + edit.after.length;
      if (data.value !== undefined) {
        if (end > data.sizeBytes)
          throw new UnsupportedError(
            `${edit.path}: has ${data.sizeBytes} bytes inside its file record and cannot become longer`,
          );
        this.#whole(records, data.place.record).set(edit.after, data.place.offset + edit.fileOffset);
        continue;
      }
      const longer = Math.max(lengths.get(edit.node) ?? data.sizeBytes, end);
      if (longer > data.sizeBytes) this.#lengthen(edit, data, longer, this.#whole(records, data.place.record));
      lengths.set(edit.node, longer);
      const usable = longer > data.sizeBytes ? longer : Math.min(data.sizeBytes, data.initializedBytes);
      patches.push(...replaceInPlace({ locate: () => this.#pieces(data, usable) }, this.#disk, [edit]));
    }
    for (const [number, whole] of records) patches.push(...this.#recordPatches(number, whole));
    return patches;
  }

  /**
   * The patches that put files into folders of the volume, all of them.
   * @throws UnsupportedError where the volume cannot take them, with the reason; FormatError where it is broken
   */
  addFiles(files: readonly NewFile[]): AddedFiles {
    return addFiles(this.#disk, this.geometry, this.state, files, (path) => this.#find(path));
  }

  /** A file record that is going to change. @throws UnsupportedError when Windows would write over it from its journal */
  #whole(records: Map<number, Uint8Array>, number: number): Uint8Array {
    if (this.state.journalOpen)
      throw new UnsupportedError(
        'NTFS: its journal was not replayed and may write over the file record that had to change; start the guest once on its old hardware and shut it down',
      );
    const whole = records.get(number) ?? this.#records.whole(number);
    records.set(number, whole);
    return whole;
  }

  #recordPatches(number: number, whole: Uint8Array): Patch[] {
    return this.#records.placesOf(number).flatMap((start) => {
      const before = new Uint8Array(whole.length);
      this.#disk.read(before, start);
      const after = withFixups(whole, `NTFS file record ${number}`, start);
      return changedRuns(before, after).map(({ offset, length }) => ({
        offsetBytes: start + offset,
        before: before.slice(offset, offset + length),
        after: after.slice(offset, offset + length),
      }));
    });
  }

  /** Makes the record say a larger size, where the file's clusters hold it and the edit fills it without a gap. */
  #lengthen(edit: NodeEdit, data: Attribute, sizeBytes: number, whole: Uint8Array): void {
    const room = this.roomOf(edit.node, edit.path);
    if (sizeBytes > room || edit.fileOffset > data.sizeBytes)
      throw new UnsupportedError(
        `${edit.path}: would need ${sizeBytes} bytes and has room for ${room} where it lies; it cannot be patched in place`,
      );
    const view = viewOf(whole);
    for (const field of ['sizeBytes', 'initializedBytes'])
      view.setBigUint64(data.place.offset + nonResidentHeader.offsetOf(field), BigInt(sizeBytes), true);
  }

  #pieces(data: Attribute, limitBytes: number): FilePiece[] {
    const { clusterBytes } = this.geometry;
    const pieces: FilePiece[] = [];
    for (const { first, count, cluster } of data.runs) {
      const fileOffset = first * clusterBytes;
      if (fileOffset >= limitBytes) break;
      if (cluster === undefined) continue;
      const lengthBytes = Math.min(count * clusterBytes, limitBytes - fileOffset);
      pieces.push({ fileOffset, volumeOffset: cluster * clusterBytes, lengthBytes });
    }
    return pieces;
  }

  /** @param path for errors */
  #data(node: NodeId, path = `file record ${node}`): Attribute {
    const number = Number(node);
    const data = this.#records.attribute(number, attributeTypes.data, '');
    if (data === undefined) throw new UsageError(`${path}: is no file of the guest`);
    if ((data.flags & attributeFlags.encrypted) !== 0)
      throw new UnsupportedError(`${path}: is encrypted by Windows (EFS) and cannot be read`);
    if ((data.flags & attributeFlags.compressed) !== 0)
      throw new UnsupportedError(`${path}: is compressed by NTFS; in Windows, "compact /u" on it makes it readable`);
    const tag = reparseTagOf(this.#records, number);
    if (tag === reparseTags.compact)
      throw new UnsupportedError(
        `${path}: is compressed by Windows (CompactOS); in Windows, "compact /u /exe" on it makes it readable`,
      );
    if (tag !== undefined)
      throw new UnsupportedError(`${path}: is a link or a placeholder (reparse tag 0x${tag.toString(16)})`);
    return data;
  }

  #find(path: string): number | undefined {
    const names = path.split('/').filter((name) => name !== '');
    if (names.length > maxPathDepth) throw new UsageError(`${path}: has more than ${maxPathDepth} names`);
    let number: number = recordNumbers.root;
    for (const name of names) {
      if ((this.#records.record(number).flags & recordFlags.folder) === 0) return undefined;
      const next = this.#folders.find(number, name);
      if (next === undefined) return undefined;
      number = next;
    }
    return number;
  }
}

function warningsOf({ dirty, journalOpen }: VolumeState): string[] {
  const warnings: string[] = [];
  if (dirty) warnings.push('NTFS: the volume is marked dirty; Windows will check it when it starts (chkdsk)');
  if (journalOpen)
    warnings.push(
      'NTFS: the journal ($LogFile) ends without a clean dismount and is not replayed here; metadata may be older than what Windows will see',
    );
  return warnings;
}

/** For a list of openers: undefined where the volume says that it is something else. @throws UnsupportedError for one that BitLocker has */
export function openNtfs(disk: Disk): NtfsVolume | undefined {
  if (isBitLocker(disk))
    throw new UnsupportedError(
      'the volume is encrypted by BitLocker; suspend or remove it in Windows before the backup',
    );
  return isNtfs(disk) ? new NtfsVolume(disk) : undefined;
}
