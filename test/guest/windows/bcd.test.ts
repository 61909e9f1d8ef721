import { expect, it } from 'vitest';
import { readBcd, setDevice, type Bcd, type PartitionName } from '../../../src/guest/windows/bcd.ts';
import { HiveEditor } from '../../../src/guest/windows/registry/edit.ts';
import { bytesInMemory, Hive } from '../../../src/guest/windows/registry/hive.ts';
import { changedRuns } from '../../../src/filesystem/edit/changed-runs.ts';
import { exportDifference, judgeHive, realHive, skipWithout } from './hives.ts';

function read(bytes: Uint8Array): Bcd {
  return readBcd(new Hive('BCD', bytesInMemory(bytes)));
}

const windows7 = { style: 'mbr', startBytes: 1_048_576, signature: 0x3623_4da4 } as const;
const gpt: PartitionName = {
  style: 'gpt',
  partition: '76cc3abd-2782-4839-af5c-5fc8e6659147',
  disk: '984c884b-4218-4f07-aa93-5ede4c7c5384',
};

it('a store of Windows 7: every device means its one partition, inside RAM disks too', (context) => {
  const { devices, paths, descriptions } = read(realHive(context, 'BCDvm'));
  expect(devices.filter(({ partition }) => partition.style === 'boot')).toHaveLength(1);
  const partitions = devices.filter(({ partition }) => partition.style !== 'boot');
  expect(partitions).toHaveLength(11);
  for (const { partition } of partitions) expect(partition).toEqual(windows7);
  // As the element itself, and inside the 170 and the 254 bytes of a RAM disk.
  expect(new Set(partitions.map(({ at }) => at))).toEqual(new Set([0x10, 0x44]));
  expect(paths.map(({ path }) => path)).toContain('\\Windows\\system32\\winload.exe');
  expect(descriptions).toContain('Windows 7');
});

it('devices of every kind are read: GPT, MBR, inside files, RAM disks and virtual disks', (context) => {
  const { devices } = read(realHive(context, 'BCDTest'));
  const partitions = devices.filter(({ partition }) => partition.style !== 'boot').map(({ partition }) => partition);
  expect(partitions).toContainEqual(gpt);
  expect(partitions).toContainEqual({ style: 'mbr', startBytes: 0x0b_1330_0000, signature: 0x3623_4da4 });
  expect(devices).toHaveLength(10);
});

it('MBR becomes GPT becomes "where it was started from" and MBR again, in place, byte for byte', (context) => {
  skipWithout(context, ['hivexregedit', 'reged', 'regfinfo']);
  const before = realHive(context, 'BCDlaptop');
  const { devices } = read(before);
  const original = devices.map(({ partition }) => partition);
  const editor = new HiveEditor('BCD', before);
  for (const to of [gpt, { style: 'boot' } as const]) {
    for (const device of devices) setDevice(editor, device, to);
    const after = new Uint8Array(editor.commit());
    judgeHive(after);
    expect(read(after).devices.map(({ partition }) => partition)).toEqual(devices.map(() => to));
    expect(exportDifference(before, after).added).toHaveLength(devices.length);
  }
  for (const [index, device] of devices.entries()) setDevice(editor, device, original[index] ?? gpt);
  const restored = editor.commit();
  expect(changedRuns(before, restored).filter(({ offset }) => offset >= 512)).toEqual([]);
});
