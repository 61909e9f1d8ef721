/** Opening the newest image of chains of 1 to 1,000 incrementals over a disk of 64 TiB, in processes of their own. */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { chainKinds, diskBytes, longChain, mulberry32, type ChainFacts, type ChainKind } from './chain.ts';
import type { BenchContext } from './context.ts';
import { dropPages, warmPages } from './page-cache.ts';
import { run } from './processes.ts';
import { markdownTable, medianOf, significant, spreadOf } from './table.ts';

const opener = fileURLToPath(new URL('./open-chain.ts', import.meta.url));
const depths = [0, 1, 10, 100, 1000];
const randomReads = 2000;

const outcome = z.object({
  images: z.number(),
  openMs: z.number(),
  openBytes: z.number(),
  firstUs: z.record(z.string(), z.number()),
  writtenUs: z.array(z.number()),
  anywhereUs: z.array(z.number()),
  readBytes: z.number(),
  beforeBytes: z.number(),
});
type Outcome = z.infer<typeof outcome>;

export async function benchOpen(context: BenchContext): Promise<string> {
  const parts = [
    'Full image: 4 KiB of data under each of the 8,192 index pages of 64 TiB. Incrementals: 16 changed places of 4 KiB each, anywhere.',
    'First reads are of 4 KiB in the newest image, in the oldest, and where nothing was ever written; each needs an index leaf of its own. ' +
      `Then ${randomReads} reads at random among all written places, and as many anywhere on the disk. Cold: the images' pages are dropped from the page cache. ` +
      'Memory is what comes on top of Node with the code loaded. Medians of the rounds.',
  ];
  for (const kind of chainKinds) parts.push(`### ${kind}`, await openedByDepth(context, kind));
  return parts.join('\n\n');
}

async function openedByDepth(context: BenchContext, kind: ChainKind): Promise<string> {
  const chain = await longChain(context, kind);
  const outcomes = new Map<string, Outcome[]>();
  for (let round = 1; round <= context.rounds; round++) {
    context.say(`open (${kind}): round ${round} of ${context.rounds}`);
    for (const depth of depths) {
      for (const state of ['cold', 'warm'] as const) {
        for (const name of chain.images.slice(0, depth + 1)) {
          const image = path.join(chain.folder, name);
          if (state === 'cold') await dropPages(image);
          else warmPages(image);
        }
        const key = `${depth} ${state}`;
        outcomes.set(key, [...(outcomes.get(key) ?? []), await openOnce(context, chain, depth, round)]);
      }
    }
  }
  const rows = [...outcomes].map(([key, samples]) => {
    const [depth = '', state = ''] = key.split(' ');
    return [depth === '0' ? 'full image alone' : `${depth} incrementals`, state, ...columns(samples)];
  });
  const baseMib = medianOf([...outcomes.values()].flat().map(({ beforeBytes }) => beforeBytes / 2 ** 20));
  return [
    markdownTable(
      [
        '',
        '',
        'open, ms (quartiles)',
        'first read: newest, us',
        'oldest, us',
        'unwritten, us',
        'written: median, us',
        '99 %',
        'anywhere: median, us',
        '99 %',
        'memory: open, MiB',
        'after reads',
      ],
      rows,
    ),
    `Node with the code takes ${Math.round(baseMib)} MiB. Making the last incremental of the 1,000 (16 changes known by \`changed\`) took ${significant(chain.lastMs / 1000)} s: its parents are opened and checked for it.`,
  ].join('\n\n');
}

function columns(samples: readonly Outcome[]): string[] {
  const median = (value: (sample: Outcome) => number): string => significant(medianOf(samples.map(value)));
  const percentile = (values: readonly number[], share: number): number =>
    [...values].sort((a, b) => a - b)[Math.floor(share * (values.length - 1))] ?? Number.NaN;
  const open = spreadOf(samples.map(({ openMs }) => openMs));
  return [
    `${significant(open.median)} (${significant(open.low)} to ${significant(open.high)})`,
    median(({ firstUs }) => firstUs['newest'] ?? Number.NaN),
    median(({ firstUs }) => firstUs['oldest'] ?? Number.NaN),
    median(({ firstUs }) => firstUs['unwritten'] ?? Number.NaN),
    median(({ writtenUs }) => percentile(writtenUs, 0.5)),
    median(({ writtenUs }) => percentile(writtenUs, 0.99)),
    median(({ anywhereUs }) => percentile(anywhereUs, 0.5)),
    median(({ anywhereUs }) => percentile(anywhereUs, 0.99)),
    median(({ openBytes }) => openBytes / 2 ** 20),
    median(({ readBytes }) => readBytes / 2 ** 20),
  ];
}

async function openOnce(context: BenchContext, chain: ChainFacts, depth: number, seed: number): Promise<Outcome> {
  const random = mulberry32(seed);
  const pick = (places: readonly number[]): number => places[Math.floor(random() * places.length)] ?? 0;
  const written = chain.places.slice(0, depth + 1);
  const anyOffset = (): number => Math.floor((random() * diskBytes) / 4096) * 4096;
  const all = written.flat();
  const places = {
    firsts: { newest: pick(written.at(-1) ?? []), oldest: pick(written[0] ?? []), unwritten: anyOffset() },
    written: Array.from({ length: randomReads }, () => pick(all)),
    anywhere: Array.from({ length: randomReads }, anyOffset),
  };
  const placesFile = path.join(context.folder, 'places.json');
  fs.writeFileSync(placesFile, JSON.stringify(places));
  const image = path.join(chain.folder, chain.images[depth] ?? '');
  const result = outcome.parse(JSON.parse(await run(process.execPath, [opener, image, placesFile], context.signal)));
  if (result.images !== depth + 1) throw new Error(`opened ${result.images} images, not ${depth + 1}`);
  return result;
}
