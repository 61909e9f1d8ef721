/**
 * Filling a disk behind its guest: how fast, against qemu-img convert; what a guest feels of it; how fast the disk is afterwards, against the
 * bare file; and how a half-filled disk reads whose image is slow.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { createPluginFile } from '../src/plugin/create.ts';
import { emptyFolder, hasCommand, ready, veneer, type Served } from './contenders.ts';
import type { BenchContext } from './context.ts';
import { mountFolder, qcow2Disk, rawDisk } from './data.ts';
import { isMounted, unmountAll } from './mounts.ts';
import { warmPages } from './page-cache.ts';
import { patiently } from './patience.ts';
import { measure, run, startServer, veneerMain } from './processes.ts';
import { markdownTable, medianOf, ratioOf, ratioText, significant } from './table.ts';

const statuses = z.array(
  z.object({ state: z.string(), activity: z.string(), presentBytes: z.number(), sizeBytes: z.number() }),
);

const fioOutput = z.object({
  jobs: z.tuple([
    z.object({
      error: z.literal(0),
      read: z.object({
        iops: z.number(),
        /** Of reads. */
        clat_ns: z.object({
          percentile: z.object({ '50.000000': z.number(), '99.000000': z.number() }).optional(),
        }),
      }),
      write: z.object({ iops: z.number() }),
    }),
  ]),
});

interface Load {
  readonly rw: 'read' | 'randread' | 'randwrite';
  readonly blockBytes: number;
  readonly jobs: number;
  /** Of the file; all of it by default. */
  readonly offsetBytes?: number;
  readonly sizeBytes?: number;
}

interface Measured {
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

const MiB = 2 ** 20;
const lookEveryMs = 20;
/** Of every read of the slow image. */
const slowReadMs = 2;

export async function benchFill(context: BenchContext): Promise<string> {
  return [
    await rates(context),
    await whatGuestsFeel(context),
    await afterCutOver(context),
    await slowImage(context),
  ].join('\n\n');
}

async function ask(context: BenchContext, ...args: readonly string[]): Promise<string> {
  return await run(process.execPath, [veneerMain, ...args], context.signal);
}

async function statusOf(context: BenchContext, file: string): Promise<z.infer<typeof statuses>[number]> {
  const [status] = statuses.parse(JSON.parse(await ask(context, 'fill', 'status', '--json', file)));
  if (status === undefined) throw new Error(`${file}: is not filled`);
  return status;
}

async function untilFill(
  context: BenchContext,
  file: string,
  isSo: (status: z.infer<typeof statuses>[number]) => boolean,
): Promise<void> {
  while (!isSo(await statusOf(context, file))) await sleep(lookEveryMs, undefined, { signal: context.signal });
}

async function fio(context: BenchContext, file: string, load: Load, seed: number): Promise<Measured> {
  const args = [
    '--name=bench',
    `--filename=${file.replaceAll(':', '\\:')}`,
    `--offset=${load.offsetBytes ?? 0}`,
    ...(load.sizeBytes === undefined ? [] : [`--size=${load.sizeBytes}`]),
    `--rw=${load.rw}`,
    `--bs=${load.blockBytes}`,
    `--numjobs=${load.jobs}`,
    '--direct=1',
    '--time_based',
    `--runtime=${Math.round(context.seconds * 1000)}ms`,
    '--ioengine=psync',
    '--thread',
    '--group_reporting',
    '--norandommap',
    `--randseed=${seed}`,
    '--allow_file_create=0',
    '--output-format=json',
  ];
  const text = await patiently(run('fio', args, context.signal), `fio, ${load.rw}`, context.signal);
  const [{ read, write }] = fioOutput.parse(JSON.parse(text.slice(text.indexOf('{')))).jobs;
  const percentile = read.clat_ns.percentile;
  return {
    perSecond: load.rw === 'randwrite' ? write.iops : read.iops,
    p50Us: (percentile?.['50.000000'] ?? Number.NaN) / 1000,
    p99Us: (percentile?.['99.000000'] ?? Number.NaN) / 1000,
  };
}

/** A folder of its own, with a link to the image and a plugin file of the format. */
async function folderWith(context: BenchContext, name: string): Promise<string> {
  const made = await mountFolder(context, await rawDisk(context), 'zstd');
  const folder = path.join(context.folder, 'fill');
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder);
  fs.linkSync(path.join(made.folder, made.imageName), path.join(folder, 'disk.spf'));
  createPluginFile(path.join(folder, 'disk.spf'), path.join(folder, name));
  return folder;
}

/** Each makes a whole disk file, and flushes it. */
async function rates(context: BenchContext): Promise<string> {
  const qcow2 = await qcow2Disk(context, true);
  const rows: string[][] = [];
  for (const format of ['vhdx', 'qcow2', 'raw']) {
    const [fill, verified, convert]: [number[], number[], number[]] = [[], [], []];
    for (let round = 0; round < context.rounds; round++) {
      context.say(`fill, round ${round + 1}: ${format}`);
      for (const [options, seconds] of [
        [['--no-verify'], fill],
        [[], verified],
      ] as const) {
        const folder = await folderWith(context, `disk.${format}`);
        warmPages(path.join(folder, 'disk.spf'));
        const args = [veneerMain, 'fill', 'start', '--no-polite', ...options, path.join(folder, `disk.${format}`)];
        seconds.push((await measure(process.execPath, args, context.signal)).seconds);
      }
      warmPages(qcow2);
      const out = path.join(context.folder, 'fill', `converted.${format}`);
      const script = 'qemu-img convert -f qcow2 -O "$3" -m 2 -W "$1" "$2" && sync -d "$2"';
      convert.push((await measure('bash', ['-c', script, 'bash', qcow2, out, format], context.signal)).seconds);
    }
    rows.push([
      format,
      ratioText(ratioOf(convert, fill)),
      ratioText(ratioOf(convert, verified)),
      significant(context.sizeMib / medianOf(fill)),
      significant(context.sizeMib / medianOf(convert)),
    ]);
  }
  return [
    'A whole disk file, flushed: `veneer fill start` (a process of its own, its start included) against `qemu-img convert -W -m 2` from qcow2 with zstd. Ratios of speed; median of the rounds (quartiles).',
    markdownTable(
      ['format', 'copied and flushed', 'and read back and compared', 'veneer MiB/s', 'qemu-img MiB/s'],
      rows,
    ),
  ].join('\n\n');
}

async function served(context: BenchContext, flags: readonly string[] = []): Promise<Served & AsyncDisposable> {
  const [transport = 'kernel'] = context.transports;
  return await (await veneer(context, await rawDisk(context), 'zstd', transport, flags)).start();
}

async function whatGuestsFeel(context: BenchContext): Promise<string> {
  const modes = ['none', 'polite', 'not polite'] as const;
  const found = Object.fromEntries(modes.map((mode) => [mode, [] as Measured[]])) as Record<
    (typeof modes)[number],
    Measured[]
  >;
  let ended = 0;
  for (let round = 0; round < context.rounds; round++) {
    for (const mode of modes) {
      context.say(`fill, round ${round + 1}: a guest's reads, fill: ${mode}`);
      await using mount = await served(context);
      const { file, offsetBytes, sizeBytes } = mount.target;
      warmPages(mount.backing);
      const load: Load = { rw: 'randread', blockBytes: 4096, jobs: 1, offsetBytes, sizeBytes };
      await fio(context, file, load, 99);
      if (mode !== 'none') await ask(context, 'fill', 'start', ...(mode === 'polite' ? [] : ['--no-polite']), file);
      found[mode].push(await fio(context, file, load, round + 1));
      if (mode === 'none') continue;
      if ((await statusOf(context, file)).activity !== 'copy') ended++;
      await removeReplacement(context, mount);
    }
  }
  const of = (mode: (typeof modes)[number], pick: (one: Measured) => number): number[] => found[mode].map(pick);
  const rows = modes.map((mode) => [
    mode,
    ratioText(
      ratioOf(
        of(mode, (one) => one.p50Us),
        of('none', (one) => one.p50Us),
      ),
    ),
    ratioText(
      ratioOf(
        of(mode, (one) => one.p99Us),
        of('none', (one) => one.p99Us),
      ),
    ),
    significant(medianOf(of(mode, (one) => one.p50Us))),
    significant(medianOf(of(mode, (one) => one.p99Us))),
  ]);
  return [
    `A guest's reads (4 KiB, random, one at a time, direct) while its disk is filled, against none; in ${ended} of ${2 * context.rounds} rounds the copy had ended before the reads did.`,
    markdownTable(['fill', 'p50, times none', 'p99, times none', 'p50 us', 'p99 us'], rows),
  ].join('\n\n');
}

/** So that the next round begins with nothing. */
async function removeReplacement(context: BenchContext, mount: Served): Promise<void> {
  const { file } = mount.target;
  if ((await statusOf(context, file)).state !== 'complete') await ask(context, 'fill', 'cancel', file);
  const folder = path.dirname(mount.backing);
  for (const name of fs.readdirSync(folder)) {
    if (name.includes('.replacement')) fs.rmSync(path.join(folder, name));
  }
}

async function afterCutOver(context: BenchContext): Promise<string> {
  const loads: readonly (Load & { readonly name: string })[] = [
    { name: '4 KiB x4 random reads', rw: 'randread', blockBytes: 4096, jobs: 4 },
    { name: '4 KiB random writes, one at a time', rw: 'randwrite', blockBytes: 4096, jobs: 1 },
    { name: '4 KiB x4 random writes', rw: 'randwrite', blockBytes: 4096, jobs: 4 },
    { name: '1 MiB reads in sequence', rw: 'read', blockBytes: MiB, jobs: 1 },
  ];
  const rows: string[][] = [];
  await using mount = await served(context);
  const { file } = mount.target;
  await ask(context, 'fill', 'start', '--no-polite', '--no-verify', file);
  await untilFill(context, file, ({ state }) => state === 'complete');
  const bare = path.join(path.dirname(mount.backing), `${path.basename(file)}.replacement`);
  try {
    for (const load of loads) {
      const [ours, theirs]: [number[], number[]] = [[], []];
      for (let round = 0; round < context.rounds; round++) {
        context.say(`fill, round ${round + 1}: after the cut-over, ${load.name}`);
        // Each its own offsets and, every other round, the first turn: a first write fills a hole, a second one does not.
        const turns = [
          [ours, file, 2 * round],
          [theirs, bare, 2 * round + 1],
        ] as const;
        for (const [results, of, seed] of round % 2 === 0 ? turns : turns.toReversed())
          results.push((await fio(context, of, load, seed)).perSecond);
      }
      rows.push([
        load.name,
        ratioText(ratioOf(ours, theirs)),
        significant(medianOf(ours)),
        significant(medianOf(theirs)),
      ]);
    }
  } finally {
    await removeReplacement(context, mount);
  }
  return [
    'After the cut-over, new handles under the mount against the bare file (direct; ratios of operations a second).',
    markdownTable(['', 'mount : bare file', 'mount', 'bare file'], rows),
  ].join('\n\n');
}

/** The image is a file whose every read waits (nbdkit's delay filter, served by nbdfuse). */
async function slowImage(context: BenchContext): Promise<string> {
  if (!hasCommand('nbdkit') || !hasCommand('nbdfuse'))
    return 'A slow image: not measured, nbdkit or nbdfuse is not there.';
  const made = await mountFolder(context, await rawDisk(context), 'zstd');
  const image = path.join(made.folder, made.imageName);
  const slow = emptyFolder(context, 'slow image');
  const server = startServer('nbdfuse', [
    ...['-r', path.join(slow, 'disk.spf'), '--command', 'nbdkit', '-s', '--exit-with-parent', '--filter=delay'],
    ...['file', image, `rdelay=${slowReadMs}ms`],
  ]);
  const folder = emptyFolder(context, 'slow folder');
  const mountpoint = emptyFolder(context, 'slow mount');
  const mount = async (...flags: string[]) => {
    const args = [veneerMain, 'mount', folder, mountpoint, '--foreground', '--allow-path', slow, ...flags];
    const started = startServer(process.execPath, args);
    await ready(context, started, () => started.output().includes('is mounted at'));
    return started;
  };
  try {
    await ready(context, server, () => isMounted(slow));
    const plugin = path.join(folder, 'disk.raw');
    // Made over the fast image, which is the same.
    const aside = path.join(path.dirname(folder), 'aside.raw');
    createPluginFile(image, aside, { force: true });
    const pointer = fs.readFileSync(aside, 'utf8');
    fs.rmSync(aside);
    const pointTo = (name: string): void => {
      const at = path.relative(folder, path.join(slow, name));
      fs.writeFileSync(plugin, pointer.replace(/"path": "[^"]*"/, `"path": ${JSON.stringify(at)}`));
    };
    pointTo('disk.spf');
    const load: Load = { rw: 'randread', blockBytes: 65_536, jobs: 2 };
    const half = (context.sizeMib / 2) * MiB;
    const file = path.join(mountpoint, 'disk.raw');
    let started = await mount('--cache', '16M');
    try {
      await ask(context, 'fill', 'start', '--no-polite', file);
      await untilFill(context, file, ({ presentBytes }) => presentBytes >= half);
      await ask(context, 'fill', 'pause', file);
    } finally {
      await started.stop();
    }
    const columns = { image: [] as number[], half: [] as number[], both: [] as number[], replacement: [] as number[] };
    // Regions are copied in order by two threads: the first quarter is there.
    const there = { ...load, sizeBytes: half / 2 };
    for (let round = 0; round < context.rounds; round++) {
      context.say(`fill, round ${round + 1}: a slow image`);
      // The image alone: what is kept is not looked at.
      started = await mount('--cache', '16M', '--write', 'none');
      try {
        columns.image.push((await fio(context, file, load, round)).perSecond);
      } finally {
        await started.stop();
      }
      started = await mount('--cache', '16M');
      try {
        columns.half.push((await fio(context, file, load, round)).perSecond);
        columns.both.push((await fio(context, file, there, round)).perSecond);
      } finally {
        await started.stop();
      }
      // The image is away: only the replacement can answer.
      pointTo('away.spf');
      started = await mount('--cache', '16M');
      try {
        columns.replacement.push((await fio(context, file, there, round)).perSecond);
      } finally {
        await started.stop();
        pointTo('disk.spf');
      }
    }
    const rows = [
      ['half filled : the image alone', ratioText(ratioOf(columns.half, columns.image))],
      ['what both have : the replacement alone', ratioText(ratioOf(columns.both, columns.replacement))],
      [
        'reads a second: image alone, half filled, what both have, replacement alone',
        Object.values(columns)
          .map((values) => significant(medianOf(values)))
          .join(', '),
      ],
    ];
    return [
      `An image whose every read takes ${slowReadMs} ms more (nbdkit delay, nbdfuse); 64 KiB random reads, two at a time, direct; cache of 16 MiB.`,
      markdownTable(['', 'ratio (quartiles)'], rows),
    ].join('\n\n');
  } finally {
    await unmountAll(path.dirname(mountpoint));
    await server.stop();
    fs.rmSync(folder, { recursive: true, force: true });
  }
}
