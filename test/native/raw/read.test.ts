/** Raw files as disks. */
import { expect, it } from 'vitest';
import { UnsupportedError } from '../../../src/base/errors.ts';
import { MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { openRaw } from '../../../src/native/raw/read.ts';
import { convertGolden, readsWhatQemuMade } from '../foreign.ts';

readsWhatQemuMade('a raw file', 7 * MiB + 512, (foreign) => openRaw(openFileDisk(convertGolden(foreign, 'raw'))));

it('an empty file is no disk', () => {
  expect(() => openRaw(memoryDisk(new Uint8Array(0)))).toThrow(UnsupportedError);
});
