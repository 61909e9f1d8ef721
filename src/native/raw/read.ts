/** Raw files as disks: the file is the disk. */
import { UnsupportedError } from '../../base/errors.ts';
import type { Disk } from '../../disk/disk.ts';
import { hasExtension, type DiskReader } from '../reader.ts';
import { raw } from './format.ts';

/**
 * The disk that a raw file holds, which is the file itself; closing it closes the file.
 * @throws UnsupportedError when the file is empty
 */
export function openRaw(file: Disk): Disk {
  if (file.sizeBytes === 0) throw new UnsupportedError('raw: the file is empty');
  return file;
}

export const rawReader: DiskReader = {
  name: 'raw',
  what: 'a raw disk file',
  qemuName: 'raw',
  isNamed: (fileName) => hasExtension(fileName, raw.extensions),
  signatures: [],
  isBare: true,
  open: openRaw,
};
