/** Messages to the kernel that answer no request, byte for byte as include/uapi/linux/fuse.h lays them out. */
import fs from 'node:fs';
import { expect, it, onTestFinished } from 'vitest';
import { dropName, dropPages } from '../../../src/mount/kernel/notify.ts';
import { TempFolder } from '../../temp-folder.ts';

/** What was written to a file that stands in for the device: the kernel itself is asked by the suites over a mount. */
function sent(message: (device: number) => boolean): Buffer {
  const folder = new TempFolder();
  onTestFinished(() => folder.remove());
  const fd = fs.openSync(folder.file('device'), 'w');
  try {
    expect(message(fd)).toBe(true);
  } finally {
    fs.closeSync(fd);
  }
  return fs.readFileSync(folder.file('device'));
}

it('FUSE_NOTIFY_INVAL_INODE names the node and the range', () => {
  const bytes = sent((device) => dropPages(device, 7, 4096, 8192));
  expect(bytes.length).toBe(40);
  expect([bytes.readUInt32LE(0), bytes.readInt32LE(4), bytes.readBigUInt64LE(8)]).toEqual([40, 2, 0n]);
  expect([bytes.readBigUInt64LE(16), bytes.readBigInt64LE(24), bytes.readBigInt64LE(32)]).toEqual([7n, 4096n, 8192n]);
});

it('FUSE_NOTIFY_INVAL_ENTRY names the folder, and the name with its end', () => {
  const bytes = sent((device) => dropName(device, 1, 'vm.vhdx'));
  expect(bytes.length).toBe(16 + 16 + 8);
  expect([bytes.readUInt32LE(0), bytes.readInt32LE(4)]).toEqual([40, 3]);
  expect([bytes.readBigUInt64LE(16), bytes.readUInt32LE(24), bytes.readUInt32LE(28)]).toEqual([1n, 7, 0]);
  expect(bytes.subarray(32).toString('latin1')).toBe('vm.vhdx\0');
});
