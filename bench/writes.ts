/**
 * Writes through the mount, first writes (copy-up) and rewrites apart: Veneer's replacement against a qcow2 overlay in a FUSE export of
 * qemu-storage-daemon and against xmount's cache file. Every turn starts a server anew, so that nothing was written before.
 */
import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { emptyFolder, hasCommand, ready, veneer } from './contenders.ts';
import type { BenchContext } from './context.ts';
import { ewfDisk, qcow2Disk, rawDisk } from './data.ts';
import { isMounted, unmountAll } from './mounts.ts';
import { patiently } from './patience.ts';
import { pidOf, run, startServer } from './processes.ts';
import { markdownTable, medianOf, ratioOf, ratioText, significant } from './table.ts';

interface Writable {
  readonly file: string;
  readonly offsetBytes: number;
  readonly stop: () => Promise<void>;
}

interface Writer {
  readonly name: string;
  readonly isOurs: boolean;
  readonly start: () => Promise<Writable>;
}

interface Load {
  readonly name: string;
  readonly pattern: 'write' | 'randwrite';
  readonly blockBytes: number;
  readonly totalBytes: number;
}

const MiB = 2 ** 20;
/** Each is written twice: the first time into what nobody has written, the second time to the same places. */
const loads: readonly Load[] = [
  { name: '4 KiB random', pattern: 'randwrite', blockBytes: 4096, totalBytes: 8 * MiB },
  { name: '64 KiB random', pattern: 'randwrite', blockBytes: 65_536, totalBytes: 64 * MiB },
  { name: '1 MiB in sequence', pattern: 'write', blockBytes: MiB, totalBytes: 128 * MiB },
];

const output = z.object({
  jobs: z.tuple([z.object({ error: z.literal(0), write: z.object({ iops: z.number() }) })]),
});

export async function benchWrites(context: BenchContext): Promise<string> {
  const writers = await writersOf(context);
  const columns = loads.flatMap((load) => [`${load.name}, first`, `${load.name}, again`]);
  const found = new Map<string, number[][]>(writers.map(({ name }) => [name, columns.map(() => [])]));
  for (let round = 0; round < context.rounds; round++) {
    for (const writer of writers) {
      for (const [index, load] of loads.entries()) {
        context.say(`writes, round ${round + 1}: ${writer.name}, ${load.name}`);
        const served = await writer.start();
        try {
          for (const pass of [0, 1]) {
            const iops = await write(served, load, round + 1, context);
            found.get(writer.name)?.[2 * index + pass]?.push(iops);
          }
        } finally {
          await served.stop();
        }
      }
    }
  }
  const values = (name: string, column: number): number[] => found.get(name)?.[column] ?? [];
  const peers = writers.filter(({ isOurs }) => !isOurs);
  const ratios = writers
    .filter(({ isOurs }) => isOurs)
    .flatMap((ours) =>
      peers.map((peer) => [
        `${ours.name} : ${peer.name}`,
        ...columns.map((_, column) => ratioText(ratioOf(values(ours.name, column), values(peer.name, column)))),
      ]),
    );
  const medians = writers.map(({ name }) => [
    name,
    ...columns.map((_, column) => significant(medianOf(values(name, column)))),
  ]);
  return [
    'One writer, direct (psync), each turn with a server started anew. "First": nothing was written there before; "again": the same places.',
    'Ratios of writes a second; median of the rounds (quartiles).',
    markdownTable(['', ...columns], ratios),
    'Medians, writes a second.',
    markdownTable(['', ...columns], medians),
  ].join('\n\n');
}

async function write(served: Writable, load: Load, seed: number, { signal, sizeMib }: BenchContext): Promise<number> {
  const args = [
    '--name=bench',
    `--filename=${served.file.replaceAll(':', '\\:')}`,
    `--offset=${served.offsetBytes}`,
    `--size=${(sizeMib - 1) * MiB}`,
    `--io_size=${load.totalBytes}`,
    `--rw=${load.pattern}`,
    `--bs=${load.blockBytes}`,
    '--direct=1',
    '--ioengine=psync',
    '--thread',
    `--randseed=${seed}`,
    '--allow_file_create=0',
    '--output-format=json',
  ];
  const text = await patiently(run('fio', args, signal), `fio, ${load.name}`, signal);
  return output.parse(JSON.parse(text.slice(text.indexOf('{')))).jobs[0].write.iops;
}

async function writersOf(context: BenchContext): Promise<Writer[]> {
  const raw = await rawDisk(context);
  const writers: Writer[] = [];
  for (const transport of context.transports) {
    const served = await veneer(context, raw, 'zstd', transport, ['--write', 'discard']);
    writers.push({
      name: `veneer ${transport}`,
      isOurs: true,
      async start() {
        const { target, [Symbol.asyncDispose]: stop } = await served.start();
        return { ...target, stop: async () => await stop() };
      },
    });
  }
  if (hasCommand('qemu-storage-daemon')) writers.push(await overlay(context));
  if (hasCommand('xmount') && hasCommand('ewfacquirestream')) writers.push(await cacheFile(context));
  return writers;
}

async function overlay(context: BenchContext): Promise<Writer> {
  const base = await qcow2Disk(context, true);
  return {
    name: 'qemu-storage-daemon qcow2 overlay',
    isOurs: false,
    async start() {
      const folder = emptyFolder(context, 'written overlay');
      const disk = path.join(context.folder, 'overlay.qcow2');
      fs.rmSync(disk, { force: true });
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, disk], context.signal);
      const file = path.join(folder, 'disk.raw');
      fs.writeFileSync(file, '');
      const server = startServer('qemu-storage-daemon', [
        ...['--blockdev', `driver=qcow2,node-name=disk,file.driver=file,file.filename=${disk.replaceAll(',', ',,')}`],
        ...['--export', `type=fuse,id=export,node-name=disk,mountpoint=${file.replaceAll(',', ',,')},writable=on`],
      ]);
      await ready(context, server, () => isMounted(file));
      const stop = async (): Promise<void> => {
        await server.stop();
        await unmountAll(folder);
        fs.rmSync(disk, { force: true });
      };
      return { file, offsetBytes: 0, stop };
    },
  };
}

async function cacheFile(context: BenchContext): Promise<Writer> {
  const ewf = await ewfDisk(context);
  return {
    name: 'xmount E01 with a cache file',
    isOurs: false,
    async start() {
      const mountpoint = emptyFolder(context, 'written cache');
      const cache = path.join(context.folder, 'xmount.cache');
      const args = ['--owcache', cache, '--in', 'ewf', ewf, '--out', 'raw', mountpoint];
      await run('xmount', args, context.signal);
      const served = fs.readdirSync(mountpoint).find((entry) => !entry.endsWith('.info'));
      const stop = async (): Promise<void> => {
        await unmountAll(path.dirname(mountpoint));
        fs.rmSync(cache, { force: true });
      };
      if (served === undefined || pidOf(['xmount', ...args]) === undefined) {
        await stop();
        throw new Error('xmount does not serve');
      }
      return { file: path.join(mountpoint, served), offsetBytes: 0, stop };
    },
  };
}
