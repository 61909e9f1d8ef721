/** Files of a Windows with no file system around them. */
import { UsageError } from '../../../src/base/errors.ts';
import { alignUp } from '../../../src/base/ranges.ts';
import { KiB } from '../../../src/base/units.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { replaceInPlace, type FileEdit, type FilePiece, type FileStat } from '../../../src/filesystem/file-system.ts';
import type { Patch } from '../../../src/filesystem/edit/patch.ts';
import type { OpenFile, WindowsFileSystem } from '../../../src/filesystem/windows-file-system.ts';

/** Each begins at a multiple of this, and is read by no more than this at once. */
export const bareFileUnitBytes = 4 * KiB;

/** Files that lie one behind another on a disk: hives without a file system that could stand in the way. */
export class BareFiles implements WindowsFileSystem {
  readonly kind = 'ntfs';
  readonly uuid = '';
  readonly label = '';
  readonly warnings: readonly string[] = [];
  readonly #disk: Disk;
  readonly #places: ReadonlyMap<string, { offset: number; sizeBytes: number }>;

  constructor(disk: Disk, sizes: readonly (readonly [string, number])[]) {
    this.#disk = disk;
    const places = new Map<string, { offset: number; sizeBytes: number }>();
    let offset = 0;
    for (const [path, sizeBytes] of sizes) {
      places.set(path, { offset, sizeBytes });
      offset += alignUp(sizeBytes, bareFileUnitBytes);
    }
    this.#places = places;
  }

  stat(path: string): FileStat | undefined {
    const place = this.#places.get(path);
    return place === undefined ? undefined : { type: 'file', sizeBytes: place.sizeBytes };
  }

  list(): string[] {
    return [];
  }

  readFile(path: string): Uint8Array {
    const bytes = new Uint8Array(this.roomOf(path));
    this.open(path).read(bytes, 0);
    return bytes;
  }

  /** In small reads, which are what mutants change. */
  open(path: string): OpenFile {
    const { offset: start, sizeBytes } = this.#place(path);
    return {
      sizeBytes,
      read: (target, offset) => {
        for (let done = 0; done < target.length; done += bareFileUnitBytes)
          this.#disk.read(target.subarray(done, done + bareFileUnitBytes), start + offset + done);
      },
    };
  }

  locate(path: string): readonly FilePiece[] {
    const { offset, sizeBytes } = this.#place(path);
    return [{ fileOffset: 0, volumeOffset: offset, lengthBytes: sizeBytes }];
  }

  roomOf(path: string): number {
    return this.#place(path).sizeBytes;
  }

  replace(edits: readonly FileEdit[]): Patch[] {
    return replaceInPlace(this, this.#disk, edits);
  }

  #place(path: string): { offset: number; sizeBytes: number } {
    const place = this.#places.get(path);
    if (place === undefined) throw new UsageError(`${path}: is no file of the guest`);
    return place;
  }
}
