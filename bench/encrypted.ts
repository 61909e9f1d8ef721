/** What encryption costs, and what consolidation does: each against its plain counterpart in the same run. Opening by depth is `open`. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { consolidateChain } from '../src/backup/care/consolidate-chain.ts';
import type { BenchContext } from './context.ts';
import { rawDisk } from './data.ts';
import { fio, type Workload } from './fio.ts';
import { isMounted, unmountAll } from './mounts.ts';
import { dropPages, warmPages } from './page-cache.ts';
import { patiently } from './patience.ts';
import { run, startServer, veneerMain, waitUntil } from './processes.ts';
import { comparePrograms, type Program } from './programs.ts';
import { markdownTable, medianOf, ratioOf, ratioText } from './table.ts';
import { workloads } from './reads.ts';

const kinds = ['plain', 'encrypted'] as const;
type Kind = (typeof kinds)[number];
const codecs = ['zstd', 'none'] as const;
type Codec = (typeof codecs)[number];
/** Incrementals of the chain that is consolidated, and of how much of the disk each is. */
const incrementals = 4;
const changedShare = 0.05;
const MiB = 1024 * 1024;

export async function benchEncrypted(context: BenchContext): Promise<string> {
  const raw = await rawDisk(context);
  const folder = path.join(context.folder, 'encrypted');
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true });
  const key = path.join(folder, 'key');
  fs.writeFileSync(key, randomBytes(32), { mode: 0o600 });
  try {
    return [
      'Targets: reads and creation at least 0.8 times the plain ones, consolidation at least 0.5 times `cp` of the same bytes.',
      '### Creation',
      await benchCreation(context, raw, folder, key),
      '### Consolidation, without the key',
      await benchConsolidation(context, raw, folder, key),
      '### Reads through the mount: encrypted, times as fast as plain (quartiles)',
      await benchReads(context, raw, folder, key),
    ].join('\n\n');
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

function sealing(kind: Kind, key: string): string[] {
  return kind === 'plain' ? [] : ['--encrypt', '--key-file', key];
}

async function benchCreation(context: BenchContext, raw: string, folder: string, key: string): Promise<string> {
  warmPages(raw);
  const output = path.join(folder, 'created.spf');
  const create = (codec: Codec, kind: Kind): Program => ({
    name: `veneer image create, ${codec}, ${kind}`,
    command: process.execPath,
    args: [veneerMain, 'image', 'create', '--codec', codec, ...sealing(kind, key), raw, output],
    output,
    ...(kind === 'plain' ? {} : { peer: `veneer image create, ${codec}, plain` }),
  });
  const programs = codecs.flatMap((codec) => kinds.map((kind) => create(codec, kind)));
  return await comparePrograms(context, programs, fs.statSync(raw).size);
}

/** Both end with the output on the disk. */
async function benchConsolidation(context: BenchContext, raw: string, folder: string, key: string): Promise<string> {
  const chain = path.join(folder, 'chain');
  fs.mkdirSync(chain);
  const newest = await makeChain(context, raw, chain, key);
  const sample = path.join(chain, 'sample');
  await consolidateChain([newest], sample);
  const copied = path.join(chain, 'copied');
  const output = path.join(chain, 'consolidated');
  for (const name of fs.readdirSync(chain)) warmPages(path.join(chain, name));
  const copy: Program = {
    name: 'cp of the result, and sync',
    command: 'sh',
    args: ['-c', 'cp --reflink=never --sparse=never "$1" "$2" && sync -d "$2"', 'sh', sample, copied],
    output: copied,
  };
  const consolidate: Program = {
    name: `veneer image consolidate, ${incrementals + 1} images`,
    command: process.execPath,
    args: [veneerMain, 'image', 'consolidate', newest, output],
    output,
    peer: copy.name,
  };
  return await comparePrograms(context, [consolidate, copy], fs.statSync(sample).size);
}

async function makeChain(context: BenchContext, raw: string, chain: string, key: string): Promise<string> {
  const source = path.join(chain, 'source.raw');
  fs.copyFileSync(raw, source);
  const { size } = fs.statSync(source);
  let parent: string | undefined;
  for (let step = 0; step <= incrementals; step++) {
    context.say(`making a chain to consolidate: ${step} of ${incrementals}`);
    if (step > 0) scribble(source, size);
    const image = path.join(chain, `${step}.${step === 0 ? 'spf' : 'spi'}`);
    const how = parent === undefined ? ['--encrypt'] : ['--parent', parent];
    const args = ['image', 'create', source, image, '--codec', 'none', '--key-file', key, ...how];
    await run(process.execPath, [veneerMain, ...args], context.signal);
    parent = image;
  }
  fs.rmSync(source);
  return parent ?? '';
}

/** Writes random bytes in pieces of 1 MiB all over the disk. */
function scribble(file: string, size: number): void {
  const fd = fs.openSync(file, 'r+');
  try {
    for (let written = 0; written < size * changedShare; written += MiB)
      fs.writeSync(fd, randomBytes(MiB), 0, MiB, Math.floor((Math.random() * (size - MiB)) / MiB) * MiB);
  } finally {
    fs.closeSync(fd);
  }
}

async function benchReads(context: BenchContext, raw: string, folder: string, key: string): Promise<string> {
  const rows: string[][] = [];
  for (const codec of codecs) {
    await using servers = new AsyncDisposableStack();
    const disks: Partial<Record<Kind, string>> = {};
    for (const kind of kinds) disks[kind] = await mountOne(context, raw, folder, key, codec, kind, servers);
    const speeds = await measureReads(context, fs.statSync(raw).size, disks as Record<Kind, string>);
    rows.push([
      codec,
      ...workloads.map(({ name }) => {
        const { plain, encrypted } = speeds.get(name) ?? { plain: [], encrypted: [] };
        const medians = [encrypted, plain].map((found) => Math.round(medianOf(found) / 1e6)).join(' and ');
        return `${ratioText(ratioOf(encrypted, plain))}, ${medians} MB/s`;
      }),
    ]);
  }
  return markdownTable(['', ...workloads.map(({ name }) => name)], rows);
}

/** Mounts an image of its own, and gives the disk file under the mount. */
async function mountOne(
  context: BenchContext,
  raw: string,
  folder: string,
  key: string,
  codec: Codec,
  kind: Kind,
  servers: AsyncDisposableStack,
): Promise<string> {
  context.say(`mounting: ${codec}, ${kind}`);
  const images = path.join(folder, `${codec}-${kind}`);
  const mountpoint = path.join(folder, `${codec}-${kind}-mount`);
  for (const made of [images, mountpoint]) fs.mkdirSync(made);
  const image = path.join(images, 'disk.spf');
  const create = ['image', 'create', raw, image, '--codec', codec, ...sealing(kind, key)];
  await run(process.execPath, [veneerMain, ...create], context.signal);
  const choice = kind === 'plain' ? [] : ['--replacement', 'sealed'];
  const plugin = ['plugin', 'create', image, path.join(images, 'disk.raw'), ...choice];
  await run(process.execPath, [veneerMain, ...plugin], context.signal);
  const keys = kind === 'plain' ? [] : ['--key-file', key];
  const server = startServer(process.execPath, [veneerMain, 'mount', images, mountpoint, '--foreground', ...keys]);
  servers.defer(async () => {
    await server.stop();
    await unmountAll(folder);
  });
  const hasFailed = (): string | undefined => (server.hasEnded() ? server.output() : undefined);
  await waitUntil(() => isMounted(mountpoint), hasFailed, context.signal);
  const disk = path.join(mountpoint, 'disk.raw');
  await run('cmp', [disk, raw], context.signal);
  return disk;
}

/** In each round every workload visits both in turn; the first round does not count. Speeds in bytes a second. */
async function measureReads(
  context: BenchContext,
  sizeBytes: number,
  disks: Readonly<Record<Kind, string>>,
): Promise<Map<string, Record<Kind, number[]>>> {
  const speeds = new Map<string, Record<Kind, number[]>>(
    workloads.map(({ name }) => [name, { plain: [], encrypted: [] }]),
  );
  const one = async (workload: Workload, kind: Kind, round: number): Promise<number> => {
    const target = { file: disks[kind], offsetBytes: 0, sizeBytes };
    await patiently(dropPages(target.file), kind, context.signal);
    return (await fio(target, workload, context.seconds, round + 1, context.signal)).bytesPerSecond;
  };
  for (let round = 0; round <= context.rounds; round++) {
    for (const workload of workloads) {
      context.say(`reads: round ${round} of ${context.rounds}: ${workload.name}`);
      for (const kind of round % 2 === 0 ? kinds : [...kinds].reverse()) {
        const speed = await one(workload, kind, round);
        if (round > 0) speeds.get(workload.name)?.[kind].push(speed);
      }
    }
  }
  return speeds;
}
