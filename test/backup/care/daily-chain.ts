/** A chain with an image each day, and what each of them must read as. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, vi } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { expectReadsAs, type ModelDisk } from '../../disk/model-disk.ts';
import type { Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { faultsOf } from '../image-holds.ts';
import { keyFile, ringOf } from '../keys.ts';
import { SourceDisk } from '../source-disk.ts';

export const owner = keyFile('owner');
export const dayMs = 24 * 60 * 60 * 1000;
/** When the first image is made: a Monday. */
export const chainStart = Date.UTC(2026, 0, 5, 12);

export interface DailyChain extends Disposable {
  readonly folder: TempFolder;
  /** What the disk held at each image, by name. */
  readonly models: Map<string, ModelDisk>;
}

/** An encrypted chain with an image each day, each of some changed blocks. */
export async function dailyChain(random: Seeded, days: number): Promise<DailyChain> {
  const folder = new TempFolder();
  fs.mkdirSync(folder.file('images'));
  const source = new SourceDisk(folder.file('source.raw'), 2 * MiB);
  const models = new Map<string, ModelDisk>();
  vi.useFakeTimers({ toFake: ['Date'] });
  try {
    let parent: string | undefined;
    for (let day = 0; day < days; day++) {
      vi.setSystemTime(chainStart + day * dayMs);
      source.write(random.below(MiB), random.bytes(40 * KiB));
      const name = `${String(day).padStart(2, '0')}.${day === 0 ? 'spf' : 'spi'}`;
      const file = path.join(folder.file('images'), name);
      await createImage(source.path, file, {
        ...(parent === undefined ? { blockBytes: 16 * KiB, encrypt: owner } : { parent, keys: ringOf(owner) }),
      });
      models.set(name, source.model.copy());
      parent = file;
    }
  } finally {
    vi.useRealTimers();
  }
  return { folder, models, [Symbol.dispose]: () => folder.remove() };
}

export function namesIn({ folder }: DailyChain): string[] {
  return fs.readdirSync(folder.file('images')).sort();
}

/** Every image that is there reads as it did, and is proved. */
export function expectAllHold({ folder, models }: DailyChain): void {
  for (const [name, model] of models) {
    const file = path.join(folder.file('images'), name);
    if (!fs.existsSync(file)) continue;
    using disk = closing(openChainDisk(file, undefined, undefined, ringOf(owner)));
    expectReadsAs(disk.value, model);
    expect(faultsOf(file, ringOf(owner)), name).toEqual([]);
  }
}
