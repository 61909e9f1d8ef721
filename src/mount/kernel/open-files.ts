/** The open files as one worker sees them: those that it has opened or met. What it has not, it adopts from the table of all workers. */
import * as fs from '../../base/fs.ts';
import { systemError } from '../../base/system-error.ts';
import type { Filter } from '../filter.ts';
import { PassThroughFile, type OpenFile } from '../open-file.ts';
import type { Stamp } from './node-table.ts';
import { isOfDisk, isOrdinary, type OpenRecord, type OpenTable } from './open-table.ts';

interface LocalFile {
  readonly serial: number;
  readonly file: OpenFile;
}

export class OpenFiles {
  readonly #table: OpenTable;
  readonly #filter: Filter;
  readonly #files: Array<LocalFile | undefined> = [];
  #epoch: number;

  constructor(table: OpenTable, filter: Filter) {
    this.#table = table;
    this.#filter = filter;
    this.#epoch = table.epoch;
  }

  /** Enters what was just opened. @throws ENFILE: it is closed then */
  add(file: OpenFile, record: OpenRecord): { slot: number; serial: number } {
    try {
      const handle = this.#table.add(record);
      this.#put(handle.slot, { serial: handle.serial, file });
      return handle;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** @throws EBADF where this handle is not open; ESTALE where its plugin file has been changed since */
  get(slot: number, serial: number): OpenFile {
    if (this.#table.epoch !== this.#epoch) this.#forgetReplaced();
    const local = this.#files[slot];
    return local?.serial === serial ? local.file : this.#adopt(slot, serial);
  }

  /** @throws EBADF unless it is open and passes through */
  descriptorOf(slot: number, serial: number): number | undefined {
    const record = this.#table.get(slot, serial);
    return isOrdinary(record.kind) ? record.fd : undefined;
  }

  /** Closes it, whichever worker has opened it. @throws EBADF */
  release(slot: number, serial: number): void {
    const record = this.#table.get(slot, serial);
    const local = this.#files[slot];
    this.#files[slot] = undefined;
    this.#table.remove(slot, serial);
    const isOwn = local?.serial === serial;
    if (isOfDisk(record.kind) && !(isOwn && local.file.isNative)) this.#filter.countClosed(record.counted);
    if (isOwn) {
      local.file.close();
      return;
    }
    local?.file.forget();
    fs.closeSync(record.fd);
  }

  /** Lets go of what other workers have closed. */
  sweep(): void {
    for (const [slot, local] of this.#files.entries()) {
      if (local === undefined || this.#table.isOpen(slot, local.serial)) continue;
      local.file.forget();
      this.#files[slot] = undefined;
    }
  }

  /** Handles of native files whose disk files have taken their places: they are met anew, as what they are now. */
  #forgetReplaced(): void {
    this.#epoch = this.#table.steadyEpoch();
    for (const [slot, local] of this.#files.entries()) {
      if (local?.file.isNative !== true || !this.#table.isOrdinary(slot, local.serial)) continue;
      local.file.forget();
      this.#files[slot] = undefined;
    }
  }

  #adopt(slot: number, serial: number): OpenFile {
    for (;;) {
      const epoch = this.#table.steadyEpoch();
      try {
        return this.#adoptAs(slot, serial);
      } catch (error) {
        // It may have been met as the one file, and be the other's by now.
        if (this.#table.epoch === epoch) throw error;
      }
    }
  }

  #adoptAs(slot: number, serial: number): OpenFile {
    const record = this.#table.get(slot, serial);
    if (record.kind === 'folder') throw systemError('EISDIR', 'read', `handle ${slot}`);
    let file: OpenFile;
    if (isOrdinary(record.kind)) {
      file = new PassThroughFile(record.fd);
    } else {
      const stamp = stampOf(fs.fstatSync(record.fd, { bigint: true }));
      // Two workers must never read different files by one handle.
      if (stamp[0] !== record.stamp[0] || stamp[1] !== record.stamp[1])
        throw systemError('ESTALE', 'read', record.path);
      file = this.#filter.adopt(record.fd, record.path, record.part, record.counted);
    }
    this.#put(slot, { serial, file });
    return file;
  }

  #put(slot: number, local: LocalFile): void {
    this.#files[slot]?.file.forget();
    while (this.#files.length <= slot) this.#files.push(undefined);
    this.#files[slot] = local;
  }
}

/** What the contents of a file are known by: a rename or a further link changes neither size nor time of change of the contents. */
export function stampOf(stat: fs.BigIntStats): Stamp {
  const low = Number(BigInt.asIntN(32, stat.mtimeNs));
  const high = Number(BigInt.asIntN(32, (stat.mtimeNs >> 32n) ^ (stat.size * 0x9e3779b1n)));
  // [0, 0] stands for a node that was never opened.
  return low === 0 && high === 0 ? [1, 0] : [low, high];
}
