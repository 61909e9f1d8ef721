/** Patches are held against the disk that they are for. */
import { expect, it } from 'vitest';
import { memoryDisk } from '../../src/disk/memory.ts';
import { targets, type GuestPlan, type Target } from '../../src/guest/plan.ts';
import { replaceInPlace } from '../../src/filesystem/edit/editable.ts';
import { checkPatches, type Patch } from '../../src/filesystem/edit/patch.ts';

const disk = memoryDisk(Buffer.from('0123456789'));

function patch(offsetBytes: number, before: string, after: string): Patch {
  return { offsetBytes, before: Buffer.from(before), after: Buffer.from(after) };
}

/** A plan for a target, in which nothing but the patches matters here. */
function planOf(target: Target, patches: readonly Patch[]): GuestPlan {
  const guest = { os: 'linux', name: target, version: '1', firmware: [], diskNames: [], storageDrivers: [] } as const;
  return { guest, changes: [], warnings: [], patches };
}

it('puts patches in the order of the disk', () => {
  const plan = planOf(targets[0], [patch(7, '78', 'hi'), patch(0, '01', 'ab')]);
  const checked = checkPatches(plan.patches, disk);
  expect(checked.map((one) => one.offsetBytes)).toEqual([0, 7]);
});

it.each([
  ['outside the disk', [patch(9, '90', 'xx')], /not inside a disk of 10 bytes/],
  ['before the disk', [patch(-1, '0', 'x')], /not inside/],
  ['of another length', [patch(0, '01', 'abc')], /3 bytes for 2/],
  ['over another', [patch(0, '012', 'abc'), patch(2, '23', 'xy')], /overlaps/],
  ['of other bytes', [patch(0, '11', 'ab')], /which a patch replaces/],
])('refuses a patch %s', (_what, patches, message) => {
  expect(() => checkPatches(patches, disk)).toThrow(message);
});

it('follows a file over its pieces', () => {
  const locate = (): { fileOffset: number; volumeOffset: number; lengthBytes: number }[] => [
    { fileOffset: 0, volumeOffset: 6, lengthBytes: 2 },
    { fileOffset: 2, volumeOffset: 0, lengthBytes: 3 },
  ];
  const patches = replaceInPlace({ locate }, disk, [
    { node: 7n, path: '/f', fileOffset: 1, after: Buffer.from('abc') },
  ]);
  expect(patches).toEqual(
    [patch(7, '7', 'a'), patch(0, '01', 'bc')].map((one) => ({ ...one, before: Uint8Array.from(one.before) })),
  );
  expect(() =>
    replaceInPlace({ locate }, disk, [{ node: 7n, path: '/f', fileOffset: 4, after: Buffer.from('xy') }]),
  ).toThrow(/cannot be patched in place/);
});
