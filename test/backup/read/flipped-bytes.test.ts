import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { IntegrityError } from '../../../src/base/errors.ts';
import { closing } from '../../../src/base/ownership.ts';
import { KiB } from '../../../src/base/units.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { codecs } from '../../../src/backup/format/layout.ts';
import { verifyChain, type Fault } from '../../../src/backup/care/verify.ts';
import { spread } from '../../covering.ts';
import { seededTest, soak, type Seeded } from '../../seeded.ts';
import { structuresOf, type StructureKind } from '../crafted-image.ts';
import { faultsOf, thrownBy } from '../image-holds.ts';
import { makeTinyImage, readOrRefuse, type TinyImage } from '../tiny-image.ts';

const blockBytes = 16 * KiB;

/** Calls back with one byte of the image flipped, in place, and puts it back. */
function withFlipped(image: TinyImage, offset: number, random: Seeded, action: () => void): void {
  const fd = fs.openSync(image.path, 'r+');
  const honest = image.bytes.subarray(offset, offset + 1);
  const flip = random.oneIn(2) ? 1 << random.below(8) : random.between(1, 255);
  try {
    fs.writeSync(fd, Buffer.from([(honest[0] ?? 0) ^ flip]), 0, 1, offset);
    action();
    fs.writeSync(fd, honest, 0, 1, offset);
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether `verify` reports a fault, or cannot even open the image. */
function isReported(imagePath: string): boolean {
  try {
    return verifyChain(imagePath).faults > 0;
  } catch {
    return true;
  }
}

describe('a flipped byte', () => {
  const metadata: StructureKind[] = ['superblock', 'record header', 'leaf', 'page', 'root', 'commit'];
  it.each(metadata)('anywhere in the %s never gives wrong bytes, and is found', { timeout: 60_000 }, async (kind) => {
    const random = seededTest(`flipped ${kind}`);
    using image = await makeTinyImage();
    const structures = structuresOf(image.bytes).filter((structure) => structure.kind === kind);
    expect(structures.length).toBeGreaterThan(0);
    const bytes = structures.flatMap(({ offset, length }) =>
      Array.from({ length }, (_, index) => [offset, index] as const),
    );
    for (const [offset, index] of spread(bytes, 500)) {
      withFlipped(image, offset + index, random, () => {
        const { refusal } = readOrRefuse(image.path, image.model);
        if (refusal === undefined) expect(isReported(image.path), `byte ${index} of the ${kind}`).toBe(true);
      });
    }
    expect(faultsOf(image.path)).toEqual([]);
  });

  it('of the index is reported by verify as the part of the disk that it hides', async () => {
    const random = seededTest('flipped index');
    using image = await makeTinyImage();
    for (const kind of ['leaf', 'page'] as const) {
      const structure = structuresOf(image.bytes).find((found) => found.kind === kind);
      withFlipped(image, (structure?.offset ?? 0) + random.below(structure?.length ?? 1), random, () => {
        const leafSpan = 512 * blockBytes;
        const lengthBytes = kind === 'leaf' ? leafSpan : 256 * leafSpan;
        expect(faultsOf(image.path)).toMatchObject([{ structure: kind, diskOffset: 0, lengthBytes }]);
      });
    }
  });

  it.each(codecs)(
    'in a block stored with %s is an error that names the block, and verify names no other',
    async (codec) => {
      const random = seededTest(`flipped payload ${codec}`);
      using image = await makeTinyImage(codec);
      const records = structuresOf(image.bytes).filter(({ kind }) => kind === 'payload');
      expect(records.length).toBe(4);
      for (const { offset, length, position = 0 } of records) {
        const samples = Array.from({ length: soak ? 400 : 25 }, () => random.below(length));
        for (const within of [0, length - 1, ...samples]) {
          withFlipped(image, offset + within, random, () => {
            using disk = closing(openChainDisk(image.path));
            const block = Buffer.alloc(16);
            const error = thrownBy(() => disk.value.read(block, position * blockBytes));
            expect(error).toBeInstanceOf(IntegrityError);
            const name = `${image.path}: block ${position} (disk byte ${position * blockBytes})`;
            expect(error).toHaveProperty('message', expect.stringContaining(name));
            const expected: Partial<Fault> = {
              image: image.path,
              structure: 'block',
              diskOffset: position * blockBytes,
              lengthBytes: blockBytes,
            };
            expect(faultsOf(image.path)).toEqual([{ ...expected, message: expect.stringContaining(name) as string }]);
          });
        }
      }
    },
  );

  it('in one block leaves the others readable, before and after it was met', async () => {
    const random = seededTest('others readable');
    using image = await makeTinyImage();
    const record = structuresOf(image.bytes).find(({ kind }) => kind === 'payload');
    withFlipped(image, (record?.offset ?? 0) + 10, random, () => {
      using disk = closing(openChainDisk(image.path));
      const bad = record?.position ?? 0;
      for (let round = 0; round < 3; round++) {
        for (let position = 0; position < 6; position++) {
          const bytes = Buffer.alloc(100);
          if (position === bad) expect(() => disk.value.read(bytes, position * blockBytes)).toThrow(IntegrityError);
          else {
            disk.value.read(bytes, position * blockBytes);
            expect(bytes.equals(image.model.read(position * blockBytes, 100))).toBe(true);
          }
        }
      }
    });
  });

  it('makes an extraction fail and leaves nothing behind', async () => {
    const random = seededTest('extraction');
    using image = await makeTinyImage();
    const record = structuresOf(image.bytes).findLast(({ kind }) => kind === 'payload');
    const before = image.folder.names();
    withFlipped(image, (record?.offset ?? 0) + 10, random, () => {
      expect(() => extractImage(image.path, image.folder.file('out.raw'))).toThrow(IntegrityError);
    });
    expect(image.folder.names()).toEqual(before);
  });
});
