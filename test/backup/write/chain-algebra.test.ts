import fs from 'node:fs';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage, type CreateOptions } from '../../../src/backup/write/create.ts';
import { extractImage } from '../../../src/backup/read/extract.ts';
import { codecs } from '../../../src/backup/format/layout.ts';
import type { ModelDisk } from '../../disk/model-disk.ts';
import { seededTest, soak, type Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { expectImageHolds } from '../image-holds.ts';
import { scribble, SourceDisk } from '../source-disk.ts';

interface Snapshot {
  readonly name: string;
  readonly model: ModelDisk;
}

const rounds = soak ? 60 : 10;
const stepsPerRound = soak ? 60 : 25;

it.each(Array.from({ length: rounds }, (_, round) => round))(
  'random writes, resizes, snapshots, branches and restores read as the model (round %i)',
  async (round) => {
    const random = seededTest(`chain algebra ${round}`);
    using folder = new TempFolder();
    const source = new SourceDisk(folder.file('source.raw'), random.between(1, 12 * MiB));
    const blockBytes = random.pick([16 * KiB, 64 * KiB, 256 * KiB, MiB]);
    const snapshots: Snapshot[] = [];
    let touched: Array<{ offset: number; length: number }> = [];
    for (let step = 0; step < stepsPerRound; step++) {
      switch (random.below(4)) {
        case 0:
          resize(source, random, touched);
          break;
        case 1:
          touched.push(...scribble(source, random, random.between(1, 6)));
          break;
        default: {
          // The newest image as the parent, where changed ranges are known; else any: a branch.
          const options: CreateOptions = { codec: random.pick(codecs), blockBytes };
          const newest = snapshots.at(-1);
          const parent = newest === undefined || random.oneIn(3) ? random.pick([undefined, ...snapshots]) : newest;
          const known = parent !== undefined && parent === newest && random.oneIn(2);
          const name = folder.file(`${snapshots.length}.spi`);
          await createImage(source.path, name, {
            ...options,
            ...(parent === undefined ? {} : { parent: parent.name }),
            ...(known ? { changed: touched } : {}),
            threads: random.between(1, 2),
          });
          snapshots.push({ name, model: source.model.copy() });
          touched = [];
          if (random.oneIn(4)) expectImageHolds(name, source.model);
        }
      }
    }
    for (const { name, model } of snapshots) expectImageHolds(name, model);
    const restored = snapshots.length === 0 ? undefined : random.pick(snapshots);
    if (restored !== undefined) {
      extractImage(restored.name, folder.file('restored.raw'));
      const { model } = restored;
      expect(fs.readFileSync(folder.file('restored.raw')).equals(model.read(0, model.sizeBytes))).toBe(true);
    }
  },
);

function resize(source: SourceDisk, random: Seeded, touched: Array<{ offset: number; length: number }>): void {
  const before = source.sizeBytes;
  source.resize(random.oneIn(2) ? random.between(1, 12 * MiB) : Math.max(1, before + random.between(-70_000, 70_000)));
  // What was cut off and grew again is zero now, and so has changed: who tracks changes tells it.
  if (source.sizeBytes < before) touched.push({ offset: source.sizeBytes, length: before - source.sizeBytes });
}
