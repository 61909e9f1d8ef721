/** What other programs say of an NTFS volume: ntfs-3g's, which walk every file record and hold its clusters against $Bitmap, and The Sleuth Kit's. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { MiB } from '../../../../src/base/units.ts';
import { TempFolder } from '../../../temp-folder.ts';
import { faultsOf } from './made-volume.ts';

export const judgePrograms = [
  'ntfsfix',
  'ntfsresize',
  'ntfsinfo',
  'ntfsls',
  'ntfscluster',
  'ntfscat',
  'ntfscp',
  'ntfsclone',
] as const;
export const sleuthPrograms = ['fls', 'istat', 'icat', 'fsstat'] as const;

function run(program: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, {
    encoding: 'latin1',
    maxBuffer: 256 * MiB,
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
  });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

/** Throws where a program finds a fault in the volume. */
export function judgeVolume(image: string): void {
  const faults = faultsOf(image);
  if (faults !== '') throw new Error(faults);
  // Walks all records, and compares what their runs take with $Bitmap.
  const said = run('ntfsresize', '--info', '--force', '--no-progress-bar', image);
  if (/error|inconsisten|warning: (?!.*--force)/i.test(said)) throw new Error(`ntfsresize: ${said}`);
  using folder = new TempFolder();
  run('ntfsclone', '--force', '--metadata', '--output', folder.file('metadata'), image);
}

/** Names in a folder as ntfsls finds them in the blocks of its index. */
export function listedNames(image: string, folder: string): string[] {
  return run('ntfsls', '--all', '--path', folder, image)
    .split('\n')
    .filter((line) => line !== '' && line !== '.' && line !== '..');
}

export interface JudgedFile {
  readonly record: number;
  readonly clusters: number[];
  readonly text: string;
}

/** A file as ntfsinfo and ntfscluster describe it. */
export function judgedFile(image: string, file: string): JudgedFile {
  const text = run('ntfsinfo', '--force', '--verbose', '--file', file, image);
  const record = Number(/^Dumping Inode (\d+)/m.exec(text)?.[1]);
  const clusters: number[] = [];
  const runs = run('ntfscluster', '--force', '--filename', file, image).split('0x80 - non-resident')[1] ?? '';
  for (const [, first, count] of runs.split('0x')[0]?.matchAll(/^ +\d+ +(\d+) +(\d+)$/gm) ?? [])
    for (let index = 0; index < Number(count); index++) clusters.push(Number(first) + index);
  return { record, clusters, text };
}

/** Where the bits of the file records lie on the volume, as ntfsinfo says. */
export function placeOfMftBitmap(image: string): { at: number; sizeBytes: number } {
  const text =
    run('ntfsinfo', '--force', '--verbose', '--inode', '0', image).split('Dumping attribute $BITMAP')[1] ?? '';
  const sizeBytes = Number(/Data size:\s+(\d+)/.exec(text)?.[1]);
  const cluster = Number(/LCN\s+Length\s+0x0\s+(0x[0-9a-f]+)/.exec(text)?.[1]);
  return { at: cluster * 4096, sizeBytes };
}

/** A file's bytes by the number of its record, and its record as The Sleuth Kit describes it. */
export function sleuthFile(image: string, record: number): { contents: Buffer; text: string } {
  const contents = execFileSync('icat', [image, String(record)], { maxBuffer: 256 * MiB });
  return { contents, text: run('istat', image, String(record)) };
}

/** Names in a folder's index as The Sleuth Kit finds them there; deleted ones are left out. */
export function sleuthNames(image: string, folderRecord: number): string[] {
  return run('fls', '-u', image, String(folderRecord))
    .split('\n')
    .flatMap((line) => /^\S+ (\d+)-\S+:\t(.*)$/.exec(line)?.[2] ?? [])
    .filter((name) => !name.includes(':'));
}

/** SHA-256 of every file, as ntfs-3g reads them: each is looked up by its name. */
export function readTree(image: string): Map<string, string> {
  using folder = new TempFolder();
  const mountpoint = folder.file('mounted');
  fs.mkdirSync(mountpoint);
  run('ntfs-3g', '-o', 'ro', image, mountpoint);
  const found = new Map<string, string>();
  const walk = (at: string): void => {
    for (const entry of fs.readdirSync(path.join(mountpoint, at), { withFileTypes: true })) {
      const name = path.join(at, entry.name);
      if (entry.isDirectory()) walk(name);
      else if (entry.isFile())
        found.set(
          name,
          createHash('sha256')
            .update(fs.readFileSync(path.join(mountpoint, name)))
            .digest('hex'),
        );
    }
  };
  try {
    walk('/');
  } finally {
    run('umount', mountpoint);
  }
  return found;
}
