/** Making an image of 1 GiB of real files, against qemu-img. Both end with the output on the disk (fdatasync, or cache mode writeback). */
import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { BenchContext } from './context.ts';
import { rawDisk } from './data.ts';
import { warmPages } from './page-cache.ts';
import { veneerMain } from './processes.ts';
import { comparePrograms, type Program } from './programs.ts';

export async function benchCreate(context: BenchContext): Promise<string> {
  const raw = await rawDisk(context);
  const folder = path.join(context.folder, 'out');
  fs.mkdirSync(folder, { recursive: true });
  warmPages(raw);
  const output = path.join(folder, 'created');
  const workers = String(availableParallelism());
  const zstd = ['-c', '-o', 'compression_type=zstd'];
  const convert = (name: string, ...flags: string[]): Program => ({
    name: `qemu-img convert ${name}`,
    command: 'qemu-img',
    args: ['convert', '-f', 'raw', '-O', 'qcow2', '-t', 'writeback', '-m', workers, ...flags, raw, output],
    output,
  });
  const create = (codec: string, peer: Program): Program => ({
    name: `veneer image create, ${codec}`,
    command: process.execPath,
    args: [veneerMain, 'image', 'create', '--codec', codec, raw, output],
    output,
    peer: peer.name,
  });
  const unordered = convert(`-c, zstd, -W -m ${workers}`, ...zstd, '-W');
  const ordered = convert(`-c, zstd, -m ${workers}`, ...zstd);
  const plain = convert(`-W -m ${workers}, plain`, '-W');
  const programs = [
    create('zstd', unordered),
    create('lz4', unordered),
    unordered,
    ordered,
    create('none', plain),
    plain,
  ];
  return [
    'The source is in the page cache; zstd is at level 3 on both sides; the output is on the disk when a program ends.',
    await comparePrograms(context, programs, fs.statSync(raw).size),
  ].join('\n\n');
}
