/** Chains of 1,000 incrementals over a sparse disk of 64 TiB, for measuring how they open. Made once; each link is a chain of its own. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { z } from 'zod';
import { createImage } from '../src/backup/write/create.ts';
import { chainCredential, chainKeys } from './chain-keys.ts';
import type { BenchContext } from './context.ts';
import { chainCode, codeKey, removeOthers } from './data.ts';

const KiB = 1024;
const TiB = 1024 ** 4;
export const diskBytes = 64 * TiB;
/** One index page of an image covers this much of the disk (256 leaves of 512 blocks of 64 KiB). */
const pageSpanBytes = 256 * 512 * 64 * KiB;
const links = 1000;
const changesInEach = 16;
const changeBytes = 4 * KiB;

const description = z.object({
  /** File names, the full image first. */
  images: z.array(z.string()),
  /** Where the full image has data, and each incremental after it. */
  places: z.array(z.array(z.number())),
  /** How long the last images took to make. */
  lastMs: z.number(),
});
export type ChainFacts = z.infer<typeof description> & { readonly folder: string };

export const chainKinds = ['plain', 'encrypted'] as const;
export type ChainKind = (typeof chainKinds)[number];

/** Makes the chain in some minutes, or finds it made. */
export async function longChain(context: BenchContext, kind: ChainKind): Promise<ChainFacts> {
  const base = path.join(context.folder, 'chains');
  const folder = path.join(base, codeKey(chainCode), kind);
  const facts = path.join(folder, 'chain.json');
  removeOthers(base, codeKey(chainCode));
  if (!fs.existsSync(facts)) {
    fs.rmSync(folder, { recursive: true, force: true });
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(facts, JSON.stringify(await makeChain(context, folder, kind)));
  }
  return { ...description.parse(JSON.parse(fs.readFileSync(facts, 'utf8'))), folder };
}

async function makeChain(
  { say, signal }: BenchContext,
  folder: string,
  kind: ChainKind,
): Promise<z.infer<typeof description>> {
  using source = sparseDisk();
  const random = mulberry32(1);
  const images: string[] = [];
  const places: number[][] = [];
  let lastMs = 0;
  for (let link = 0; link <= links; link++) {
    if (link % 100 === 0) say(`making a chain (${kind}) over 64 TiB: ${link} of ${links} incrementals`);
    // The full image has data under each of its pages: the largest root that there is.
    const offsets =
      link === 0
        ? Array.from(
            { length: diskBytes / pageSpanBytes },
            (_, page) => page * pageSpanBytes + place(random, pageSpanBytes),
          )
        : Array.from({ length: changesInEach }, () => place(random, diskBytes));
    for (const offset of offsets) source.write(offset, random);
    const name = `${String(link).padStart(4, '0')}.${link === 0 ? 'spf' : 'spi'}`;
    const startMs = performance.now();
    await createImage(source.path, path.join(folder, name), {
      threads: 1,
      keys: chainKeys(),
      ...(link === 0
        ? kind === 'encrypted'
          ? { encrypt: chainCredential }
          : {}
        : {
            parent: path.join(folder, images.at(-1) ?? ''),
            changed: offsets.map((offset) => ({ offset, length: changeBytes })),
          }),
    });
    lastMs = performance.now() - startMs;
    images.push(name);
    places.push(offsets);
    // Lets Ctrl-C be heard.
    await setImmediate();
    signal.throwIfAborted();
  }
  return { images, places, lastMs };
}

interface SparseDisk extends Disposable {
  readonly path: string;
  write(offset: number, random: () => number): void;
}

/** In memory, where a file may have this size (ext4 ends at 16 TiB); what is written to it is some 100 MB. */
function sparseDisk(): SparseDisk {
  const base = fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir();
  const folder = fs.mkdtempSync(path.join(base, 'veneer-bench-'));
  const file = path.join(folder, 'disk.raw');
  const fd = fs.openSync(file, 'w+');
  fs.ftruncateSync(fd, diskBytes);
  return {
    path: file,
    write(offset, random) {
      const bytes = Buffer.alloc(changeBytes);
      for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(Math.floor(random() * 2 ** 32), at);
      fs.writeSync(fd, bytes, 0, bytes.length, offset);
    },
    [Symbol.dispose]() {
      fs.closeSync(fd);
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
}

function place(random: () => number, spanBytes: number): number {
  return Math.floor((random() * spanBytes) / changeBytes) * changeBytes;
}

/** A small seeded generator: the same chain each time. */
export function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
