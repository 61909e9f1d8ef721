/**
 * An NTFS volume whose structures are changed, as writes that are not made: they become patches. What was changed is read back by later
 * steps. Records keep their update sequence number; where $MFTMirr has a copy of one, it changes with it.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import type { Patch } from '../edit/patch.ts';
import { StagedWrites } from '../edit/staged-writes.ts';
import { withFixups } from './fixups.ts';
import { Folders } from './folders.ts';
import type { Geometry } from './geometry.ts';
import { attributeTypes } from './layout.ts';
import { EditedRecord } from './record-edit.ts';
import { Records, type Attribute } from './records.ts';
import { findRun, readRuns } from './run-reader.ts';

export class NtfsWriter {
  readonly geometry: Geometry;
  readonly records: Records;
  readonly folders: Folders;
  readonly #writes: StagedWrites;
  readonly #volume: Disk;

  constructor(disk: Disk, geometry: Geometry) {
    this.geometry = geometry;
    this.#writes = new StagedWrites(disk);
    this.#volume = this.#writes.view();
    this.records = new Records(this.#volume, geometry);
    this.folders = new Folders(this.#volume, geometry, this.records);
  }

  patches(): Patch[] {
    return this.#writes.patches();
  }

  /** The attribute of a record, which may be spread over several. @throws FormatError where it is missing */
  need(record: number, type: number, name: string): Attribute {
    const found = this.records.attribute(record, type, name);
    if (found === undefined)
      throw new FormatError(`NTFS file record ${record}`, `attribute 0x${type.toString(16)}`, 0, 'is missing');
    return found;
  }

  /** A record for editing. @throws UnsupportedError when its attributes lie in other records as well */
  edit(number: number): EditedRecord {
    if (this.records.record(number).attributes.some(({ type }) => type === attributeTypes.attributeList))
      throw new UnsupportedError(
        `NTFS file record ${number}: its attributes are spread over several records, and are not changed`,
      );
    return new EditedRecord(number, this.records.whole(number));
  }

  putRecord(number: number, whole: Uint8Array): void {
    for (const at of this.records.placesOf(number))
      this.writeVolume(at, withFixups(whole, `NTFS file record ${number}`, at));
    this.records.forget(number);
  }

  readAttribute(attribute: Attribute, target: Uint8Array, offset: number): void {
    if (attribute.value !== undefined) target.set(attribute.value.subarray(offset, offset + target.length));
    else readRuns(this.#volume, this.geometry.clusterBytes, attribute, target, offset);
  }

  /** Writes over the data of an attribute of runs. @throws FormatError where no cluster, or one that was never written, has the place */
  writeRuns(attribute: Pick<Attribute, 'runs' | 'initializedBytes'>, bytes: Uint8Array, offset: number): void {
    const { clusterBytes } = this.geometry;
    if (offset + bytes.length > attribute.initializedBytes)
      throw new FormatError('NTFS runs', 'clusters', offset, 'were not written before');
    for (let done = 0; done < bytes.length;) {
      const at = offset + done;
      const run = findRun(attribute.runs, Math.floor(at / clusterBytes));
      if (run?.cluster === undefined)
        throw new FormatError('NTFS runs', 'clusters', at, 'none holds that byte of the attribute');
      const within = at - run.first * clusterBytes;
      const length = Math.min(bytes.length - done, run.count * clusterBytes - within);
      this.writeVolume(run.cluster * clusterBytes + within, bytes.subarray(done, done + length));
      done += length;
    }
  }

  writeVolume(offset: number, bytes: Uint8Array): void {
    this.#writes.write(offset, bytes);
  }
}
