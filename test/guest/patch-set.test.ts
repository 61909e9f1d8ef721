/** Patch sets as files: what is written is read again, anything else is refused, and no set is laid over another disk than its own. */
import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import { VeneerError } from '../../src/base/errors.ts';
import { sealCrc32c } from '../../src/bytes/checksum.ts';
import { memoryDisk } from '../../src/disk/memory.ts';
import {
  applyPatchSet,
  encodePatchSet,
  parsePatchSet,
  type PatchSet,
  type StoredPatchSet,
} from '../../src/guest/patch-set.ts';
import { seededTest } from '../seeded.ts';
import { wholePatchSet } from './whole-patch-set.ts';

const imageId = randomUUID();
const contents = Buffer.from('0123456789abcdef');

const set: PatchSet = {
  target: 'vmware',
  images: [{ imageId, sizeBytes: contents.length }],
  guest: { os: 'linux', name: 'Test' },
  changes: [{ what: 'w', where: '/etc/fstab', old: 'a', new: 'b', why: 'y' }],
  warnings: ['one'],
  patches: [
    { image: 0, offsetBytes: 10, before: Buffer.from('ab'), after: Buffer.from('XY') },
    { image: 0, offsetBytes: 2, before: Buffer.from('2'), after: Buffer.from('!') },
  ],
  bootConfig: 'boot\n',
  initramfs: Buffer.from('an archive'),
};

function stored(value: PatchSet): StoredPatchSet {
  return parsePatchSet(memoryDisk(encodePatchSet(value)), 'set');
}

function plain(value: PatchSet): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, item: unknown) => (item instanceof Uint8Array ? [...item] : item)),
    (_, item: unknown) =>
      typeof item === 'object' && item !== null && 'type' in item && 'data' in item ? item.data : item,
  );
}

it('a set is read as it was written, and its disk reads with it', () => {
  const read = stored(set);
  expect(plain(wholePatchSet(read))).toEqual(plain(set));
  const [disk] = applyPatchSet(read, [memoryDisk(contents)], [imageId], 'set');
  const bytes = Buffer.alloc(contents.length);
  disk?.read(bytes, 0);
  expect(bytes.toString()).toBe('01!3456789XYcdef');
});

it('a set is refused over another image, another size, other bytes, and too few disks', () => {
  const apply = (disk: Buffer, id = imageId): unknown => applyPatchSet(stored(set), [memoryDisk(disk)], [id], 'set');
  expect(() => apply(contents, randomUUID())).toThrow(/is for another image/);
  expect(() => apply(Buffer.concat([contents, contents]))).toThrow(/is for another image/);
  expect(() => apply(Buffer.from(contents.toString().replace('ab', 'aB')))).toThrow(/which a patch replaces/);
  expect(() => applyPatchSet(stored(set), [], [], 'set')).toThrow(/is for another image/);
  const elsewhere = { ...set, patches: set.patches.map((patch) => ({ ...patch, image: 3 })) };
  expect(() => applyPatchSet(stored(elsewhere), [memoryDisk(contents)], [imageId], 'set')).toThrow(
    /an image that there is not/,
  );
});

it('a set of a later version is refused, and its version is named', () => {
  const file = Buffer.from(encodePatchSet(set));
  file.writeUInt16LE(2, 8);
  sealCrc32c(file.subarray(0, 128), 124);
  expect(() => parsePatchSet(memoryDisk(file), 'set')).toThrow(
    /^set: is a patch set of version 2, of which this Veneer knows 1$/,
  );
});

it('a set with any byte changed, cut off, or longer, is refused', () => {
  const random = seededTest('patch set');
  const file = Buffer.from(encodePatchSet(set));
  const refuse = (bytes: Uint8Array): void => {
    expect(() => parsePatchSet(memoryDisk(bytes), 'set')).toThrow(VeneerError);
  };
  for (let count = 0; count < 400; count++) {
    const changed = Buffer.from(file);
    const at = random.below(file.length);
    changed[at] = (changed[at] ?? 0) ^ (2 ** random.below(8));
    refuse(changed);
    refuse(file.subarray(0, random.below(file.length)));
  }
  refuse(Buffer.concat([file, Buffer.alloc(1)]));
});
