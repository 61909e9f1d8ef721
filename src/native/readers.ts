/** Every native format that disks are read from: a room and a line here is all that a further one takes. */
import { qcow2Reader } from './qcow2/read.ts';
import { qedReader } from './qed/read.ts';
import { rawReader } from './raw/read.ts';
import type { DiskReader } from './reader.ts';
import { vdiReader } from './vdi/read.ts';
import { vhdReader } from './vhd/read.ts';
import { vhdxReader } from './vhdx/read.ts';
import { vmdkReader } from './vmdk/read.ts';

/** The more telling marks come first. */
export const nativeReaders: readonly DiskReader[] = [
  rawReader,
  qcow2Reader,
  vhdxReader,
  vhdReader,
  vdiReader,
  vmdkReader,
  qedReader,
];
