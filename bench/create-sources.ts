/**
 * Making an image of each kind of source, against `qemu-img convert` of the same file. The same 1 GiB of real files lies in each of them;
 * "scattered": its units lie in the file in the order in which they were written, which was none.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { BenchContext } from './context.ts';
import { once, rawDisk } from './data.ts';
import { warmPages } from './page-cache.ts';
import { measure, run, veneerMain } from './processes.ts';
import { markdownTable, medianOf, ratioOf, ratioText, significant } from './table.ts';

interface SourceKind {
  readonly name: string;
  /** Of Veneer, and of QEMU. */
  readonly format: string;
  readonly qemu: string;
  /** Packed in one run of qemu-img; without these it is written unit by unit. */
  readonly convert?: readonly string[];
  readonly create?: readonly string[];
}

const MiB = 1024 * 1024;
/** Of one write: VHD's own units. */
const unitBytes = 2 * MiB;

const kinds: readonly SourceKind[] = [
  { name: 'qcow2, compressed', format: 'qcow2', qemu: 'qcow2', convert: ['-c'] },
  { name: 'VMDK, stream-optimized', format: 'vmdk', qemu: 'vmdk', convert: ['-o', 'subformat=streamOptimized'] },
  { name: 'qcow2, scattered', format: 'qcow2', qemu: 'qcow2' },
  { name: 'VMDK, scattered', format: 'vmdk', qemu: 'vmdk' },
  { name: 'VHD, scattered', format: 'vhd', qemu: 'vpc', create: ['-o', 'force_size=on'] },
  { name: 'VHDX, scattered', format: 'vhdx', qemu: 'vhdx', create: ['-o', 'block_size=1M'] },
  { name: 'VDI, scattered', format: 'vdi', qemu: 'vdi' },
];

export async function benchCreateSources(context: BenchContext): Promise<string> {
  const folder = path.join(context.folder, 'out');
  fs.mkdirSync(folder, { recursive: true });
  const output = path.join(folder, 'created');
  const rows: string[][] = [];
  for (const kind of kinds) {
    const source = await sourceOf(context, kind);
    warmPages(source);
    const ours = (codec: string): readonly string[] => {
      return [veneerMain, 'image', 'create', '--codec', codec, '--source-format', kind.format, source, output];
    };
    const theirs = (...flags: string[]): readonly string[] => {
      const workers = String(availableParallelism());
      return ['convert', '-f', kind.qemu, '-O', 'qcow2', '-t', 'writeback', '-m', workers, ...flags, source, output];
    };
    const programs: Array<readonly [string, readonly string[]]> = [
      [process.execPath, ours('none')],
      ['qemu-img', theirs()],
      [process.execPath, ours('zstd')],
      ['qemu-img', theirs('-c', '-o', 'compression_type=zstd')],
    ];
    const cpu = programs.map((): number[] => []);
    for (let round = 1; round <= context.rounds; round++) {
      for (const [index, [command, args]] of programs.entries()) {
        context.say(
          `round ${round} of ${context.rounds}: ${kind.name}, ${index < 2 ? 'plain' : 'zstd'}, ${path.basename(command)}`,
        );
        try {
          cpu[index]?.push((await measure(command, args, context.signal)).cpuSeconds);
        } finally {
          fs.rmSync(output, { force: true });
        }
      }
    }
    const [none = [], plain = [], zstd = [], packed = []] = cpu;
    rows.push([
      kind.name,
      ...[none, plain].map((seconds) => significant(medianOf(seconds))),
      ratioText(ratioOf(none, plain)),
      ...[zstd, packed].map((seconds) => significant(medianOf(seconds))),
      ratioText(ratioOf(zstd, packed)),
    ]);
  }
  const header = ['', 'veneer, none', 'qemu-img, plain', 'ratio', 'veneer, zstd', 'qemu-img -c, zstd', 'ratio'];
  return [
    'Processor time in seconds, of all threads. The source is in the page cache; outputs are on the disk when a program ends.',
    markdownTable(header, rows),
  ].join('\n\n');
}

async function sourceOf(context: BenchContext, kind: SourceKind): Promise<string> {
  const raw = await rawDisk(context);
  const key = createHash('sha256').update(JSON.stringify(kind)).digest('hex').slice(0, 12);
  return await once(path.join(path.dirname(raw), `source-${key}-${context.sizeMib}`), async (unfinished) => {
    context.say(`making ${kind.name}`);
    if (kind.convert !== undefined) {
      const args = ['convert', '-f', 'raw', '-O', kind.qemu, ...kind.convert, raw, unfinished];
      await run('qemu-img', args, context.signal);
      return;
    }
    await run(
      'qemu-img',
      ['create', '-f', kind.qemu, ...(kind.create ?? []), unfinished, String(fs.statSync(raw).size)],
      context.signal,
    );
    await scatter(raw, unfinished, kind.qemu, context.signal);
  });
}

/** Writes the units in an order that is none, but the same each time. */
async function scatter(raw: string, target: string, format: string, signal: AbortSignal): Promise<void> {
  const { size } = fs.statSync(raw);
  const order = Array.from({ length: Math.ceil(size / unitBytes) }, (_, unit) => unit)
    .map((unit) => ({ unit, key: createHash('sha256').update(String(unit)).digest('hex') }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  for (let done = 0; done < order.length; done += 64) {
    const parts = order.slice(done, done + 64).map(({ unit }) => {
      const part = `${target}.unit-${unit}`;
      const length = Math.min(unitBytes, size - unit * unitBytes);
      const bytes = Buffer.alloc(length);
      const fd = fs.openSync(raw, 'r');
      fs.readSync(fd, bytes, 0, length, unit * unitBytes);
      fs.closeSync(fd);
      fs.writeFileSync(part, bytes);
      return { part, command: `write -q -s ${part} ${unit * unitBytes} ${length}` };
    });
    try {
      await run(
        'qemu-io',
        ['-t', 'unsafe', '-f', format, ...parts.flatMap(({ command }) => ['-c', command]), target],
        signal,
      );
    } finally {
      for (const { part } of parts) fs.rmSync(part, { force: true });
    }
  }
}
