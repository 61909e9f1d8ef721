/** Key slots that somebody without the key has written: what trying a passphrase costs is known, and refused, before anything is tried. */
import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { sealCrc32c } from '../../../src/bytes/checksum.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { Image } from '../../../src/backup/read/image.ts';
import { KeySlots, maxKeySlots, maxScryptWork, maxSlotWork } from '../../../src/backup/crypto/key-slots.ts';
import { ChainKey } from '../../../src/backup/crypto/seal.ts';
import { processorMs } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { keyFile, passphrase, ringOf } from '../keys.ts';

const chainId = randomUUID();
const ownWork = 2 ** 17 * 8;

interface Costs {
  readonly logN: number;
  readonly r: number;
  readonly p: number;
}

/** A key block with one key file, and a passphrase slot of each of these costs. */
function slotsWith(costs: readonly Costs[]): KeySlots {
  const key = ChainKey.random(chainId);
  const block = Buffer.from(KeySlots.first(key, keyFile('ours')).encode());
  for (const [index, { logN, r, p }] of costs.entries()) {
    const at = 256 + 256 * (index + 1);
    block[at] = 1;
    block[at + 1] = logN;
    block.writeUInt32LE(r, at + 4);
    block.writeUInt32LE(p, at + 8);
  }
  return KeySlots.parse(sealCrc32c(block, 4092), chainId, 'image');
}

/** Refused at once: no scrypt was run. */
function expectNoWork(action: () => void): void {
  const before = processorMs();
  action();
  expect(processorMs() - before).toBeLessThan(100);
}

it.each([
  { logN: 40, r: 8, p: 1 },
  { logN: 255, r: 1, p: 1 },
  { logN: 17, r: 8, p: 5 },
  { logN: 1, r: 2 ** 32 - 1, p: 1 },
  { logN: 1, r: 1, p: 2 ** 32 - 1 },
  { logN: 0, r: 8, p: 1 },
  { logN: 17, r: 0, p: 1 },
])('a slot of other costs than may be is refused: $logN, $r, $p', (costs) => {
  const slots = slotsWith([costs]);
  expectNoWork(() => expect(() => slots.unlock(passphrase('x'), 'image')).toThrow(/scrypt costs/));
});

it('slots that each may be, and together cost too much, are refused before the first is tried', () => {
  const costs = Array.from({ length: maxKeySlots - 1 }, () => ({ logN: 17, r: 8, p: 4 }));
  expect(maxSlotWork).toBe(4 * ownWork);
  expectNoWork(() =>
    expect(() => slotsWith(costs).unlock(passphrase('x'), 'image')).toThrow(/all slots together take \d+ steps/),
  );
  // Seven of our own make, and four of the largest, may be.
  const own = Array.from({ length: maxKeySlots - 1 }, () => ({ logN: 17, r: 8, p: 1 }));
  expect(slotsWith(own).workOf(passphrase('x'), 'image')).toBe(7 * ownWork);
  expect(slotsWith(costs.slice(0, 4)).workOf(passphrase('x'), 'image')).toBe(maxScryptWork);
});

it('a key file costs nothing, whatever else is there', () => {
  const costs = Array.from({ length: maxKeySlots - 1 }, () => ({ logN: 40, r: 8, p: 16 }));
  expectNoWork(() => expect(slotsWith(costs).unlock(keyFile('ours'), 'image')?.slot).toBe(0));
});

it('a ring tries its key files first, and no passphrase that would cost more than is left', async () => {
  using folder = new TempFolder();
  const [disk, file] = [folder.write('disk.raw', Buffer.alloc(65_536, 1)), folder.file('vm.spf')];
  await createImage(disk, file, { encrypt: keyFile('ours') });
  using image = closing(Image.open(file));
  expectNoWork(() => expect(ringOf(passphrase('x'), keyFile('ours')).find(image.value)).toBeDefined());
  const sealed = folder.file('secret.spf');
  await createImage(disk, sealed, { encrypt: passphrase('right') });
  using other = closing(Image.open(sealed));
  const ring = ringOf(passphrase('right'));
  expectNoWork(() => expect(ring.find(other.value, ownWork - 1)).toBeUndefined());
  expect(ring.workDone).toBe(0);
  expect(ring.find(other.value, ownWork)).toBeDefined();
  expect(ring.workDone).toBe(ownWork);
});
