/** Sealed patch sets as files: opened by their key for their place alone, and nothing of them can be read or changed without it. */
import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import { VeneerError } from '../../src/base/errors.ts';
import { sealCrc32c } from '../../src/bytes/checksum.ts';
import { ChainKey } from '../../src/backup/crypto/seal.ts';
import { memoryDisk } from '../../src/disk/memory.ts';
import { encodePatchSet, type PatchSet } from '../../src/guest/patch-set.ts';
import { isSealedPatchSet, openPatchSet, sealPatchSet, type PatchSetPlace } from '../../src/plugin/sealed-patch-set.ts';
import { wholePatchSet } from '../guest/whole-patch-set.ts';
import { seededTest } from '../seeded.ts';

const key = ChainKey.random(randomUUID());
const place: PatchSetPlace = { target: 'vmware', pluginId: randomUUID(), imageIds: [randomUUID(), randomUUID()] };
const secrets = ['/etc/a-path-of-the-guest', 'what was there', 'what is so now', 'an archive of drivers', 'menu entry'];
const [where = '', before = '', after = '', initramfs = '', bootConfig = ''] = secrets;

const set: PatchSet = {
  target: place.target,
  images: place.imageIds.map((imageId) => ({ imageId, sizeBytes: 4096 })),
  guest: { os: 'linux', name: 'Test' },
  changes: [{ what: 'w', where, old: before, new: after, why: 'y' }],
  warnings: [],
  patches: [{ image: 0, offsetBytes: 10, before: Buffer.from(before), after: Buffer.from(after) }],
  bootConfig,
  initramfs: Buffer.from(initramfs),
};

it('a sealed set is read with its key as it was written, and nothing of it without', () => {
  const file = Buffer.from(sealPatchSet(set, place, key));
  expect(isSealedPatchSet(memoryDisk(file))).toBe(true);
  expect(encodePatchSet(wholePatchSet(openPatchSet(memoryDisk(file), place, key, 'set')))).toEqual(encodePatchSet(set));
  const plain = Buffer.from(encodePatchSet(set));
  expect(isSealedPatchSet(memoryDisk(plain))).toBe(false);
  for (const secret of secrets) {
    expect(plain.includes(secret), secret).toBe(true);
    expect(file.includes(secret), secret).toBe(false);
  }
});

it('the same set sealed twice has no sealed byte in common with itself', () => {
  const [one, two] = [1, 2].map(() => Buffer.from(sealPatchSet(set, place, key)).subarray(128));
  const same = one?.filter((byte, index) => byte === two?.[index]).length ?? 0;
  // By chance, one of 256.
  expect(same).toBeLessThan((one?.length ?? 0) / 16);
});

it('another key, target, plugin file or image does not open it', () => {
  const file = sealPatchSet(set, place, key);
  const open =
    (at: PatchSetPlace, by = key) =>
    () =>
      openPatchSet(memoryDisk(file), at, by, 'set');
  const [first = '', second = ''] = place.imageIds;
  expect(open({ ...place, target: 'qemu' })).toThrow(/of another plugin file, image or target; reconfigure again/);
  expect(open({ ...place, pluginId: randomUUID() })).toThrow(/of another plugin file, image or target/);
  expect(open({ ...place, imageIds: [second, first] })).toThrow(/of another plugin file, image or target/);
  expect(open({ ...place, imageIds: [first] })).toThrow(/was changed since it was sealed, or sealed with another key/);
  expect(open({ ...place, imageIds: [first, randomUUID()] })).toThrow(/was changed since it was sealed/);
  expect(open(place, ChainKey.random(key.chainId))).toThrow(/was changed since it was sealed/);
});

it('what is made for another place by changing what can be read of it does not open there', () => {
  const file = sealPatchSet(set, place, key);
  const pluginId = randomUUID();
  const forged = sealPatchSet(set, { ...place, pluginId }, key).slice();
  forged.set(file.subarray(128), 128);
  expect(() => openPatchSet(memoryDisk(forged), { ...place, pluginId }, key, 'set')).toThrow(
    /was changed since it was sealed/,
  );
});

it('a set with any byte changed, its checksum made right again or not, cut off, or longer, is refused', () => {
  const random = seededTest('sealed patch set');
  const file = Buffer.from(sealPatchSet(set, place, key));
  const refuse = (bytes: Uint8Array, what: string): void => {
    expect(() => openPatchSet(memoryDisk(bytes), place, key, 'set'), what).toThrow(VeneerError);
  };
  for (let count = 0; count < 400; count++) {
    const changed = Buffer.from(file);
    const at = random.below(file.length);
    changed[at] = (changed[at] ?? 0) ^ (2 ** random.below(8));
    refuse(changed, `byte ${at}`);
    // The checksum is anybody's to make.
    if (at < 124) refuse(Buffer.concat([sealCrc32c(changed.subarray(0, 128), 124), file.subarray(128)]), `byte ${at}`);
    refuse(file.subarray(0, random.below(file.length)), 'cut off');
  }
  refuse(Buffer.concat([file, Buffer.alloc(1)]), 'longer');
});
