/**
 * A native disk file as the source of a disk that others rely on: it is held to the state in which it was opened. An image has an identity that
 * its bytes are bound to; a disk file from elsewhere has none, and whoever owns it may write to it at any time. So each of its files (itself, its
 * parents, extents and parts) is known by name, size, time of change, and samples of its content where formats keep their headers.
 *
 * - What is read is returned only if none of the files has another size or time of change by then: a writer sets the time before the bytes.
 * - Another state is another disk: nothing is mended.
 * - Every file is a regular one, opened by a path without links; a link that has taken its place is not followed.
 */
import { createHash } from 'node:crypto';
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { UnavailableError, VeneerError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import { openRegular } from '../base/regular-file.ts';
import { sourceGate } from '../base/source-gate.ts';
import { KiB } from '../base/units.ts';
import type { Disk, Extent } from '../disk/disk.ts';
import { fileDiskOf } from '../disk/file.ts';
import type { NativeDisk } from '../native/reader.ts';
import type { FileAddress } from './address.ts';
import { openSourceWith } from './open-source.ts';

/** What a file is known by, as a plugin file keeps it. */
export type SourceState = Pick<FileAddress, 'sizeBytes' | 'modifiedNs' | 'stateSha256'>;

/** Called for each file. What they throw refuses the source. */
export interface FileJudge {
  /** Before it is opened. @param filePath without links, but for what has been put there since */
  before(filePath: string): void;
  /** When it is open, and nothing of it was read. */
  after(filePath: string, stat: fs.BigIntStats): void;
}

/** Headers of all formats lie at these places: those of a VHDX behind 64 and 128 KiB, a VHD's footer at the end. */
const sampleOffsets = [0, 64 * KiB, 128 * KiB, -4 * KiB];
const sampleBytes = 4 * KiB;
/** What is served may be many disks in many threads: each reads its tables in so much memory. */
const tableCacheBytes = 512 * KiB;

class FrozenFile {
  readonly path: string;
  readonly stat: fs.BigIntStats;
  readonly disk: Disk;
  readonly #fd: number;

  private constructor(filePath: string, fd: number) {
    this.path = filePath;
    this.#fd = fd;
    this.stat = fs.fstatSync(fd, { bigint: true });
    this.disk = fileDiskOf(fd, filePath);
  }

  /** @throws UnavailableError; ForbiddenError when it is no regular file */
  static open(filePath: string): FrozenFile {
    try {
      return new FrozenFile(filePath, openRegular(filePath, fs.constants.O_RDONLY));
    } catch (error) {
      if (error instanceof VeneerError) throw error;
      throw new UnavailableError(`${filePath}: cannot be opened`, { cause: error, retryable: true });
    }
  }

  /** @throws UnavailableError */
  requireUnchanged(): void {
    const { size, mtimeNs } = fs.fstatSync(this.#fd, { bigint: true });
    if (size !== this.stat.size || mtimeNs !== this.stat.mtimeNs) throw changedError(this.path, 'it was opened');
  }

  /** SHA-256 of the samples. */
  samples(): string {
    const hash = createHash('sha256');
    const { sizeBytes } = this.disk;
    for (const offset of sampleOffsets) {
      const start = Math.max(0, offset < 0 ? sizeBytes + offset : Math.min(offset, sizeBytes));
      const sample = new Uint8Array(Math.min(sampleBytes, sizeBytes - start));
      if (sample.length > 0) this.disk.read(sample, start);
      hash.update(sample);
    }
    return hash.digest('hex');
  }
}

/** @param since "it was opened", "the plugin file was made" */
export function changedError(filePath: string, since: string): UnavailableError {
  return new UnavailableError(
    `${filePath}: was changed or replaced since ${since}; put it back as it was, or make the plugin file again`,
  );
}

export class FrozenSource implements Closable {
  /** Reads go through the gate of the source that it was opened in. Owns the files. */
  readonly disk: NativeDisk;
  /** The name of its format. */
  readonly format: string;
  readonly #files: readonly FrozenFile[];

  private constructor(disk: NativeDisk, format: string, files: readonly FrozenFile[]) {
    this.disk = disk;
    this.format = format;
    this.#files = files;
  }

  /**
   * @param filePath without links
   * @param format default: what its name and its content say
   * @throws as openSource; what `judge` throws
   */
  static open(filePath: string, format?: string, judge?: FileJudge): FrozenSource {
    const files: FrozenFile[] = [];
    const openFile = (onePath: string): Disk => {
      judge?.before(onePath);
      const file = FrozenFile.open(onePath);
      try {
        judge?.after(onePath, file.stat);
      } catch (error) {
        file.disk.close();
        throw error;
      }
      files.push(file);
      return file.disk;
    };
    const { disk, reader } = openSourceWith({ filePath, format, openFile, openBeside: openFile, tableCacheBytes });
    return new FrozenSource(frozenDisk(disk, files), reader.name, files);
  }

  /** Itself, its parents, extents and parts. */
  get fileCount(): number {
    return this.#files.length;
  }

  /** When the newest of its files was changed, in nanoseconds since 1970. */
  get newestNs(): bigint {
    return this.#files.reduce((newest, { stat }) => (stat.mtimeNs > newest ? stat.mtimeNs : newest), 0n);
  }

  /** Reads a few KiB of each file. The same state: the same bytes, as far as that can be told without reading all of them. */
  state(): SourceState {
    const [itself] = this.#files;
    const files = this.#files.map((file) => [
      path.relative(path.dirname(itself?.path ?? ''), file.path),
      String(file.stat.size),
      String(file.stat.mtimeNs),
      file.samples(),
    ]);
    // Its own name may be another: it is the plugin file's pointer that says it.
    files[0]?.splice(0, 1, '');
    this.requireUnchanged();
    return {
      sizeBytes: Number(itself?.stat.size),
      modifiedNs: String(itself?.stat.mtimeNs),
      stateSha256: createHash('sha256').update(JSON.stringify(files)).digest('hex'),
    };
  }

  /** @throws UnavailableError when one of its files has changed since it was opened */
  requireUnchanged(): void {
    for (const file of this.#files) file.requireUnchanged();
  }

  close(): void {
    this.disk.close();
  }
}

/** Also what was told from tables in memory is told only while no file has changed. */
function frozenDisk(disk: NativeDisk, files: readonly FrozenFile[]): NativeDisk {
  const source = sourceGate().current;
  const within = <T>(action: () => T): T =>
    sourceGate().through(source, () => {
      const found = action();
      for (const file of files) file.requireUnchanged();
      return found;
    });
  const { sizeBytes, identity, logicalSectorBytes, physicalSectorBytes } = disk;
  return {
    sizeBytes,
    ...(identity === undefined ? {} : { identity }),
    ...(logicalSectorBytes === undefined ? {} : { logicalSectorBytes }),
    ...(physicalSectorBytes === undefined ? {} : { physicalSectorBytes }),
    read: (target, offset) => within(() => disk.read(target, offset)),
    *extents(offset, length): Generator<Extent> {
      const extents = within(() => disk.extents(offset, length)[Symbol.iterator]());
      for (let next = within(() => extents.next()); next.done !== true; next = within(() => extents.next()))
        yield next.value;
    },
    close: () => sourceGate().closing(source, () => disk.close()),
  };
}
