/** Every file system that is read: a room and a line here is all that a further one takes. */
import type { Disk } from '../disk/disk.ts';
import type { EditableFileSystem } from './edit/editable.ts';
import { openBtrfs } from './btrfs/open.ts';
import { openExt4 } from './ext4/open.ts';
import { openFat } from './fat/volume.ts';
import { openNtfs } from './ntfs/volume.ts';
import { openXfs } from './xfs/open.ts';

export interface FileSystemReader {
  /** Its family, as the README calls it. */
  readonly name: string;
  /**
   * The volume stays the caller's.
   * @returns undefined where the volume is none of these
   * @throws FormatError, UnsupportedError where it is one that cannot be read
   */
  open(volume: Disk): EditableFileSystem | undefined;
}

/** The more telling marks come first. */
export const fileSystems: readonly FileSystemReader[] = [
  { name: 'ext4', open: openExt4 },
  { name: 'XFS', open: openXfs },
  { name: 'btrfs', open: openBtrfs },
  { name: 'NTFS', open: openNtfs },
  { name: 'FAT', open: openFat },
];
