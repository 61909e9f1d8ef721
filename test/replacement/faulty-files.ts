/**
 * The files of a folder as a disk without power may leave them. While one of these is in use it keeps, of every file in the folder, what was
 * flushed and what was done since, and so can make the states that a power loss at that moment may leave:
 *
 * - of a file, everything up to its last flush, and any of the later operations, each write torn between its sectors of 512 bytes; so of its mode
 * - of the folder, all names up to its last flush, and the first of the later changes
 *
 * A sector that is written holds what the file had there at that moment, for it is whole pages that reach a disk.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import type { Seeded } from '../seeded.ts';

const sectorBytes = 512;
const permissionBits = 0o7777;

type Operation =
  /** Whole sectors, the last one as far as the file went. */
  | { readonly kind: 'write'; readonly at: number; readonly sectors: Buffer }
  | { readonly kind: 'resize'; readonly sizeBytes: number }
  | { readonly kind: 'mode'; readonly mode: number };

class FileRecord {
  contents: Buffer;
  durable: Buffer;
  mode: number;
  durableMode: number;
  pending: Operation[] = [];

  constructor(contents: Buffer, mode: number) {
    this.contents = contents;
    this.durable = contents;
    this.mode = mode & permissionBits;
    this.durableMode = this.mode;
  }

  write(bytes: Uint8Array, offset: number): void {
    const end = offset + bytes.length;
    this.contents = Buffer.concat([this.contents, Buffer.alloc(Math.max(0, end - this.contents.length))]);
    this.contents.set(bytes, offset);
    const at = offset - (offset % sectorBytes);
    const sectors = this.contents.subarray(at, Math.ceil(end / sectorBytes) * sectorBytes);
    this.pending.push({ kind: 'write', at, sectors: Buffer.from(sectors) });
  }

  resize(sizeBytes: number): void {
    this.contents = resized(this.contents, sizeBytes);
    this.pending.push({ kind: 'resize', sizeBytes });
  }

  changeMode(mode: number): void {
    this.mode = mode;
    this.pending.push({ kind: 'mode', mode });
  }

  flush(): void {
    this.durable = this.contents;
    this.durableMode = this.mode;
    this.contents = Buffer.from(this.contents);
    this.pending = [];
  }

  afterPowerLoss(random: Seeded): { bytes: Buffer; mode: number } {
    let bytes: Buffer = Buffer.from(this.durable);
    let mode = this.durableMode;
    // From almost nothing to almost all of it.
    const keptOf100 = random.pick([0, 10, 50, 90, 100]);
    for (const operation of this.pending) {
      if (random.below(100) >= keptOf100) continue;
      if (operation.kind === 'resize') bytes = resized(bytes, operation.sizeBytes);
      else if (operation.kind === 'mode') mode = operation.mode;
      else
        bytes = withSectors(
          bytes,
          operation.at,
          operation.sectors,
          random.oneIn(2) ? () => true : () => random.oneIn(2),
        );
    }
    return { bytes, mode };
  }
}

function resized(bytes: Buffer, sizeBytes: number): Buffer {
  return Buffer.concat([bytes.subarray(0, sizeBytes), Buffer.alloc(Math.max(0, sizeBytes - bytes.length))]);
}

function withSectors(bytes: Buffer, at: number, sectors: Buffer, isKept: () => boolean): Buffer {
  let made = bytes;
  for (let done = 0; done < sectors.length; done += sectorBytes) {
    if (!isKept()) continue;
    const sector = sectors.subarray(done, done + sectorBytes);
    const end = at + done + sector.length;
    if (end > made.length) made = resized(made, end);
    made.set(sector, at + done);
  }
  return made;
}

type Names = ReadonlyMap<string, FileRecord>;

export class FaultyFiles implements Disposable {
  readonly #folder: string;
  readonly #onMoment: () => void;
  readonly #descriptors = new Map<number, FileRecord | 'folder'>();
  /** The names as they are, then as they were before each change since the last flush of the folder, oldest first. */
  #names: Names;
  #earlierNames: Names[] = [];

  /** @param onMoment called before each operation that changes or flushes something in the folder; that one has not been done then */
  constructor(folder: string, onMoment: () => void) {
    this.#folder = folder;
    this.#onMoment = onMoment;
    const recordOf = (file: string): FileRecord => new FileRecord(fs.readFileSync(file), fs.statSync(file).mode);
    this.#names = new Map(fs.readdirSync(folder).map((name) => [name, recordOf(path.join(folder, name))]));
    inUse.add(this);
  }

  /** Writes into another folder, an empty one, what a power loss now may leave. */
  losePower(random: Seeded, target: string): void {
    const names = random.pick([...this.#earlierNames, this.#names]);
    for (const [name, record] of names) {
      const { bytes, mode } = record.afterPowerLoss(random);
      fs.writeFileSync(path.join(target, name), bytes);
      fs.chmodSync(path.join(target, name), mode);
    }
  }

  /** What this believes to be in a file, to be compared with what is. */
  contents(name: string): Buffer | undefined {
    return this.#names.get(name)?.contents;
  }

  [Symbol.dispose](): void {
    inUse.delete(this);
  }

  /** The calls below come from the functions that stand in for those of `fs`. */
  willOpen(filePath: string): void {
    if (this.#has(filePath) && !this.#names.has(path.basename(filePath))) this.#onMoment();
  }

  opened(fd: number, filePath: string): void {
    if (filePath === this.#folder) this.#descriptors.set(fd, 'folder');
    if (!this.#has(filePath)) return;
    const name = path.basename(filePath);
    const record = this.#names.get(name) ?? new FileRecord(Buffer.alloc(0), fs.fstatSync(fd).mode);
    if (!this.#names.has(name)) this.#rename((names) => names.set(name, record));
    this.#descriptors.set(fd, record);
    // Opened so that it is empty now.
    if (record.contents.length > 0 && fs.fstatSync(fd).size === 0) record.resize(0);
  }

  closed(fd: number): void {
    this.#descriptors.delete(fd);
  }

  written(fd: number, bytes: Uint8Array, offset: number): void {
    const record = this.#about(fd);
    if (record instanceof FileRecord) record.write(bytes, offset);
  }

  resized(fd: number, sizeBytes: number): void {
    const record = this.#about(fd);
    if (record instanceof FileRecord) record.resize(sizeBytes);
  }

  modeChanged(fd: number, mode: number): void {
    const record = this.#about(fd);
    if (record instanceof FileRecord) record.changeMode(mode);
  }

  flushed(fd: number): void {
    const record = this.#about(fd);
    if (record instanceof FileRecord) record.flush();
    else if (record === 'folder') this.#earlierNames = [];
  }

  /** A hole inside the file; sectors of it may be left out, as those of a write. */
  punched(fd: number, offset: number, lengthBytes: number): void {
    const record = this.#about(fd);
    if (!(record instanceof FileRecord)) return;
    const end = Math.min(offset + lengthBytes, record.contents.length);
    if (end > offset) record.write(Buffer.alloc(end - offset), offset);
  }

  renamed(from: string, to: string): void {
    if (!this.#has(from)) return;
    this.#onMoment();
    const record = this.#names.get(path.basename(from));
    this.#rename((names) => {
      names.delete(path.basename(from));
      if (record !== undefined) names.set(path.basename(to), record);
    });
  }

  removed(filePath: string): void {
    const name = path.basename(filePath);
    if (!this.#has(filePath) || !this.#names.has(name)) return;
    this.#onMoment();
    this.#rename((names) => names.delete(name));
  }

  #has(filePath: string): boolean {
    return path.dirname(filePath) === this.#folder;
  }

  #about(fd: number): FileRecord | 'folder' | undefined {
    const record = this.#descriptors.get(fd);
    if (record !== undefined) this.#onMoment();
    return record;
  }

  #rename(change: (names: Map<string, FileRecord>) => void): void {
    this.#earlierNames.push(this.#names);
    const names = new Map(this.#names);
    change(names);
    this.#names = names;
  }
}

const inUse = new Set<FaultyFiles>();

/** Tells all that are in use. The real operation comes after, so that a moment is the one before it. */
function tell(what: (files: FaultyFiles) => void): void {
  for (const files of [...inUse]) what(files);
}

/** To be called by whoever stands in for the function that makes holes. */
export function tellPunched(fd: number, offset: number, lengthBytes: number): void {
  tell((files) => files.punched(fd, offset, lengthBytes));
}

const real = { ...fs };

Object.assign(fs, {
  openSync(filePath: string, ...rest: [string | number, number?]) {
    tell((files) => files.willOpen(filePath));
    const fd = real.openSync(filePath, ...rest);
    tell((files) => files.opened(fd, filePath));
    return fd;
  },
  closeSync(fd: number) {
    tell((files) => files.closed(fd));
    real.closeSync(fd);
  },
  writeSync(fd: number, source: Uint8Array, start: number, length: number, position: number) {
    tell((files) => files.written(fd, source.subarray(start, start + length), position));
    return real.writeSync(fd, source, start, length, position);
  },
  ftruncateSync(fd: number, sizeBytes: number) {
    tell((files) => files.resized(fd, sizeBytes));
    real.ftruncateSync(fd, sizeBytes);
  },
  fchmodSync(fd: number, mode: number) {
    tell((files) => files.modeChanged(fd, mode));
    real.fchmodSync(fd, mode);
  },
  fdatasyncSync(fd: number) {
    tell((files) => files.flushed(fd));
    if (inUse.size === 0) real.fdatasyncSync(fd);
  },
  fsyncSync(fd: number) {
    tell((files) => files.flushed(fd));
    if (inUse.size === 0) real.fsyncSync(fd);
  },
  rmSync(filePath: string, ...rest: [fs.RmOptions?]) {
    tell((files) => files.removed(filePath));
    real.rmSync(filePath, ...rest);
  },
  renameSync(from: string, to: string) {
    tell((files) => files.renamed(from, to));
    real.renameSync(from, to);
  },
});

// Who imports the functions by name gets these, too.
syncBuiltinESMExports();
