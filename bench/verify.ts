/** Checking every stored checksum, and writing the disk out again. */
import fs from 'node:fs';
import path from 'node:path';
import type { BenchContext } from './context.ts';
import { ewfDisk, mountFolder, qcow2Disk, rawDisk } from './data.ts';
import { warmPages } from './page-cache.ts';
import { run, veneerMain } from './processes.ts';
import { comparePrograms, type Program } from './programs.ts';
import { availableParallelism } from 'node:os';

export async function benchVerify(context: BenchContext): Promise<string> {
  const raw = await rawDisk(context);
  const workBytes = fs.statSync(raw).size;
  const { folder, imageName } = await mountFolder(context, raw, 'zstd');
  const image = path.join(folder, imageName);
  const [ewf, qcow2] = [await ewfDisk(context), await qcow2Disk(context, true)];
  const output = path.join(context.folder, 'out', 'extracted');
  fs.mkdirSync(path.dirname(output), { recursive: true });
  for (const file of [image, ewf, qcow2]) warmPages(file);
  await verifySame(context, image, raw, output);

  const ewfverify = { name: 'ewfverify, E01 (MD5 of all)', command: 'ewfverify', args: ['-q', ewf] };
  const convert: Program = {
    name: 'qemu-img convert, zstd qcow2 to raw',
    command: 'qemu-img',
    args: [
      ...['convert', '-f', 'qcow2', '-O', 'raw', '-t', 'writeback', '-W', '-m', String(availableParallelism())],
      ...[qcow2, output],
    ],
    output,
  };
  const ours = (name: string, peer: Program, args: readonly string[], written?: string): Program => ({
    name: `veneer image ${name}`,
    command: process.execPath,
    args: [veneerMain, 'image', ...args],
    peer: peer.name,
    ...(written === undefined ? {} : { output: written }),
  });
  const verifying = [ours('verify', ewfverify, ['verify', image]), ewfverify];
  const extracting = [ours('extract', convert, ['extract', image, output], output), convert];
  return [
    'Images of zstd blocks, in the page cache. Rates are of the disk, not of what is stored.',
    await comparePrograms(context, verifying, workBytes),
    await comparePrograms(context, extracting, workBytes),
  ].join('\n\n');
}

/** @throws when what is extracted is not what the image was made of */
async function verifySame({ signal }: BenchContext, image: string, raw: string, output: string): Promise<void> {
  try {
    await run(process.execPath, [veneerMain, 'image', 'extract', '--force', image, output], signal);
    await run('cmp', [raw, output], signal);
  } finally {
    fs.rmSync(output, { force: true });
  }
}
