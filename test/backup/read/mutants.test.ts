import { expect, it } from 'vitest';
import { VeneerError } from '../../../src/base/errors.ts';
import { closing } from '../../../src/base/ownership.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { verifyChain } from '../../../src/backup/care/verify.ts';
import { processorMs, seededTest, soak, type Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { craftImage, rawBlock, structuresOf, type CraftedBlock, type Lies } from '../crafted-image.ts';
import { makeTinyImage, readOrRefuse } from '../tiny-image.ts';

const count = soak ? 5000 : 300;

it('a mutant of an image reads as the image or is refused', { timeout: 600_000 }, async () => {
  const random = seededTest('mutants');
  using image = await makeTinyImage('lz4');
  let refused = 0;
  for (let index = 0; index < count; index++) {
    const mutant = mutate(image.bytes, random);
    image.put(mutant);
    if (readOrRefuse(image.path, image.model).refusal !== undefined) refused++;
    else if (!mutant.equals(image.bytes)) expect(() => expect(verifyChain(image.path).faults).toBe(0)).toThrow();
  }
  expect(refused).toBeGreaterThan(count * 0.8);
});

it('an image of random lies, its checksums right, is read or refused in bounded time', { timeout: 600_000 }, () => {
  const random = seededTest('random lies');
  using folder = new TempFolder();
  for (let index = 0; index < count; index++) {
    const blocks = new Map<number, CraftedBlock>([
      [0, rawBlock(random.bytes(16_384))],
      [3, 'zero'],
      [600, rawBlock(random.bytes(16_384))],
    ]);
    const { bytes } = craftImage({ blocks, sizeBytes: 16_384 * 700, lies: randomLies(random) });
    const path = folder.write('lies.spf', bytes);
    const started = processorMs();
    try {
      using disk = closing(openChainDisk(path));
      expect([...disk.value.extents(0, Math.min(disk.value.sizeBytes, 2 ** 30))].length).toBeGreaterThan(0);
      const block = Buffer.alloc(4096);
      for (const offset of [0, 3 * 16_384, 600 * 16_384])
        if (offset + block.length <= disk.value.sizeBytes) disk.value.read(block, offset);
    } catch (error) {
      if (!(error instanceof VeneerError) || error.code === 'ASSERTION') throw error;
    }
    expect(processorMs() - started).toBeLessThan(2000);
  }
});

/** One to three changes of any kind, some of them inside one structure, some across. */
function mutate(image: Buffer, random: Seeded): Buffer {
  let mutant = Buffer.from(image);
  const structures = structuresOf(image);
  for (let change = random.below(3); change >= 0; change--) {
    const { offset, length } = random.pick(structures);
    const at = Math.min(offset + random.below(length), mutant.length - 1);
    const span = Math.min(random.pick([1, 4, 8, 32, 512, 5000]), mutant.length - at);
    switch (random.below(8)) {
      case 0:
        mutant[at] = random.below(256);
        break;
      case 1:
        random.bytes(span).copy(mutant, at);
        break;
      case 2:
        mutant.fill(random.pick([0, 0xff]), at, at + span);
        break;
      case 3:
        mutant.copyWithin(at, random.below(mutant.length), random.below(mutant.length));
        break;
      case 4:
        mutant = mutant.subarray(0, random.between(1, mutant.length));
        break;
      case 5:
        mutant = Buffer.concat([mutant, random.bytes(span)]);
        break;
      case 6:
        mutant = Buffer.concat([mutant.subarray(0, at), mutant.subarray(at + span)]);
        if (mutant.length === 0) mutant = Buffer.alloc(1);
        break;
      default:
        mutant = Buffer.concat([mutant.subarray(0, at), random.bytes(span), mutant.subarray(at)]);
    }
  }
  return mutant;
}

/** One field of one structure becomes a number that someone might choose to do harm. */
function randomLies(random: Seeded): Lies {
  const lie = <T extends object>(honest: T): T => {
    const numeric = Object.entries<unknown>(honest as Record<string, unknown>).filter(
      (entry): entry is [string, number | bigint] => ['bigint', 'number'].includes(typeof entry[1]),
    );
    const [field, value] = random.pick(numeric);
    if (typeof value === 'bigint') {
      const edges = [0n, 1n, 2n ** 32n, 2n ** 40n, 2n ** 50n, 2n ** 53n - 1n, 2n ** 63n, 2n ** 64n - 1n];
      return { ...honest, [field]: random.pick([...edges, value + 1n, value * 2n, BigInt(random.below(2 ** 40))]) };
    }
    return { ...honest, [field]: random.pick([0, 1, 2, 255, value + 1, random.below(256)]) };
  };
  return { [random.pick(['superblock', 'recordHeader', 'entry', 'page', 'root', 'commit'])]: lie };
}
