/** What the planning for Windows needs of a file system beyond what every guest's offers. NTFS and FAT have it. */
import type { GuestFileSystem } from './file-system.ts';

/** A file's data, read piece by piece. */
export interface OpenFile {
  readonly sizeBytes: number;
  /** Fills the target or throws. */
  read(target: Uint8Array, offset: number): void;
}

export interface WindowsFileSystem extends GuestFileSystem {
  /** For a file that is not read as a whole. @throws UsageError where there is none */
  open(path: string): OpenFile;
  /** How long `replace` can make a file, in the clusters that it has: at least its size. */
  roomOf(path: string): number;
}
