/**
 * An NTFS volume, read, and the patches that change file data in place.
 *
 * - Data is read where it lies: in the record, in runs, across records; what was never written reads as zeros.
 * - Compressed and encrypted files, and those that Windows has compressed for itself (CompactOS), are refused with the reason.
 * - A patch changes bytes of data that are on the disk already. Data inside a file record is put back under the record's protection.
 *   A file may become longer as far as its own last clusters go: then its record says so too. Nothing else of the metadata changes.
 */
import { UnsupportedError, UsageError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import { viewOf } from '../../bytes/view.ts';
import { changedRuns } from '../edit/changed-runs.ts';
import { replaceInPlace, type FileEdit, type FilePiece, type FileStat } from '../file-system.ts';
import type { Patch } from '../edit/patch.ts';
import type { OpenFile, WindowsFileSystem } from '../windows-file-system.ts';
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
import { Records, type Attribute } from './records.ts';
import { readRuns } from './run-reader.ts';
import { readState, type VolumeState } from './state.ts';

/** Reparse tag of files that Windows keeps compressed in a second stream. */
const compactTag = 0x8000_0017;

export class NtfsVolume implements WindowsFileSystem {
  readonly kind = 'ntfs';
  readonly uuid: string;
  readonly label: string;
  readonly warnings: readonly string[];
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

  stat(path: string): FileStat | undefined {
    const number = this.#find(path);
    if (number === undefined) return undefined;
    const { flags } = this.#records.record(number);
    if ((flags & recordFlags.folder) !== 0) return { type: 'folder', sizeBytes: 0 };
    const sizeBytes = this.#records.attribute(number, attributeTypes.data, '')?.sizeBytes ?? 0;
    const tag = this.#reparseTag(number);
    return { type: tag === undefined || tag === compactTag ? 'file' : 'other', sizeBytes };
  }

  list(path: string): string[] {
    const number = this.#find(path);
    if (number === undefined || (this.#records.record(number).flags & recordFlags.folder) === 0)
      throw new UsageError(`${path}: is no folder of the guest`);
    return this.#folders
      .names(number)
      .filter((name) => name !== '.')
      .sort();
  }

  readFile(path: string, limitBytes: number): Uint8Array {
    const file = this.open(path);
    if (file.sizeBytes > limitBytes)
      throw new UnsupportedError(`${path}: has ${file.sizeBytes} bytes; at most ${limitBytes} are read`);
    const bytes = new Uint8Array(file.sizeBytes);
    file.read(bytes, 0);
    return bytes;
  }

  open(path: string): OpenFile {
    const data = this.#data(path);
    return {
      sizeBytes: data.sizeBytes,
      read: (target, offset) => {
        if (offset < 0 || offset + target.length > data.sizeBytes)
          throw new UsageError(`${path}: bytes ${offset} to ${offset + target.length} of ${data.sizeBytes}`);
        if (data.value !== undefined) target.set(data.value.subarray(offset, offset + target.length));
        else readRuns(this.#disk, this.geometry.clusterBytes, data, target, offset);
      },
    };
  }

  locate(path: string): readonly FilePiece[] {
    const data = this.#data(path);
    if (data.value !== undefined) throw new UnsupportedError(`${path}: its data lies inside a file record`);
    return this.#pieces(data, Math.min(data.sizeBytes, data.initializedBytes));
  }

  roomOf(path: string): number {
    const data = this.#data(path);
    const fixed =
      data.value !== undefined ||
      data.initializedBytes !== data.sizeBytes ||
      (data.flags & attributeFlags.sparse) !== 0;
    return fixed ? data.sizeBytes : data.allocatedBytes;
  }

  replace(edits: readonly FileEdit[]): Patch[] {
    const patches: Patch[] = [];
    /** Records that change, as they are meant. */
    const records = new Map<number, Uint8Array>();
    const lengths = new Map<string, number>();
    for (const edit of edits) {
      const data = this.#data(edit.path);
      const end = edit.fileOffset + edit.after.length;
      if (data.value !== undefined) {
        if (end > data.sizeBytes)
          throw new UnsupportedError(
            `${edit.path}: has ${data.sizeBytes} bytes inside its file record and cannot become longer`,
          );
        this.#whole(records, data.place.record).set(edit.after, data.place.offset + edit.fileOffset);
        continue;
      }
      const longer = Math.max(lengths.get(edit.path) ?? data.sizeBytes, end);
      if (longer > data.sizeBytes) this.#lengthen(edit, data, longer, this.#whole(records, data.place.record));
      lengths.set(edit.path, longer);
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
  #lengthen(edit: FileEdit, data: Attribute, sizeBytes: number, whole: Uint8Array): void {
    const room = this.roomOf(edit.path);
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

  #data(path: string): Attribute {
    const number = this.#find(path);
    const data = number === undefined ? undefined : this.#records.attribute(number, attributeTypes.data, '');
    if (number === undefined || data === undefined) throw new UsageError(`${path}: is no file of the guest`);
    if ((data.flags & attributeFlags.encrypted) !== 0)
      throw new UnsupportedError(`${path}: is encrypted by Windows (EFS) and cannot be read`);
    if ((data.flags & attributeFlags.compressed) !== 0)
      throw new UnsupportedError(`${path}: is compressed by NTFS; in Windows, "compact /u" on it makes it readable`);
    const tag = this.#reparseTag(number);
    if (tag === compactTag)
      throw new UnsupportedError(
        `${path}: is compressed by Windows (CompactOS); in Windows, "compact /u /exe" on it makes it readable`,
      );
    if (tag !== undefined)
      throw new UnsupportedError(`${path}: is a link or a placeholder (reparse tag 0x${tag.toString(16)})`);
    return data;
  }

  #reparseTag(number: number): number | undefined {
    const value = this.#records.attribute(number, attributeTypes.reparsePoint, '')?.value;
    return value === undefined || value.length < 4 ? undefined : viewOf(value).getUint32(0, true);
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
