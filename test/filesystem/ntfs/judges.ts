/** What other programs say of an NTFS volume: ntfs-3g's, which walk every file record and hold its clusters against $Bitmap, and The Sleuth Kit's. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { KiB, MiB } from '../../../src/base/units.ts';
import { TempFolder } from '../../temp-folder.ts';
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
  'ntfssecaudit',
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

/** A file's security as ntfssecaudit reads it, which finds no fault in $Secure. */
export function judgedSecurity(image: string, file: string): string {
  const said = run('ntfssecaudit', '-ar', image);
  if (!said.includes('No errors were found')) throw new Error(said);
  return run('ntfssecaudit', '-v', image, file).split('Security key')[1] ?? '';
}

interface Place {
  readonly at: number;
  readonly sizeBytes: number;
}

/** Where a file of the file system itself begins on the volume, and its size, as ntfsinfo says. */
function placeOf(image: string, record: number, attribute: string): Place {
  const all = run('ntfsinfo', '--force', '--verbose', '--inode', String(record), image);
  const text = all.split(`Dumping attribute ${attribute}`)[1] ?? '';
  const sizeBytes = Number(/Data size:\s+(\d+)/.exec(text)?.[1]);
  const cluster = Number(/LCN\s+Length\s+0x0\s+(0x[0-9a-f]+)/.exec(text)?.[1]);
  const boot = firstBytes(image, 512);
  return { at: cluster * boot.readUInt16LE(11) * boot.readUInt8(13), sizeBytes };
}

function firstBytes(image: string, length: number): Buffer {
  const fd = fs.openSync(image, 'r');
  try {
    const bytes = Buffer.alloc(length);
    fs.readSync(fd, bytes, 0, length, 0);
    return bytes;
  } finally {
    fs.closeSync(fd);
  }
}

/** The bits of the file records ($MFT's own) or of the clusters ($Bitmap). */
export function placeOfBits(image: string, of: 'records' | 'clusters'): Place {
  return of === 'records' ? placeOf(image, 0, '$BITMAP') : placeOf(image, 6, '$DATA');
}

/** Whether the MFT's own bitmap has a record for taken. */
export function isRecordTaken(image: string, record: number): boolean {
  const { at } = placeOfBits(image, 'records');
  const byte = fs.readFileSync(image)[at + Math.floor(record / 8)] ?? 0;
  return Math.floor(byte / 2 ** (record % 8)) % 2 === 1;
}

/** The records in use whose copy in $MFTMirr differs; of an MFT whose beginning lies in one piece. */
export function differentCopies(image: string): number[] {
  const bytes = fs.readFileSync(image);
  const mft = placeOf(image, 0, '$DATA').at;
  const { at, sizeBytes } = placeOf(image, 1, '$DATA');
  const isDifferent = (record: number): boolean => {
    const [own, copy] = [mft, at].map((start) => bytes.subarray(start + record * KiB, start + (record + 1) * KiB));
    return own !== undefined && copy !== undefined && own.readUInt16LE(22) % 2 === 1 && !own.equals(copy);
  };
  return [...Array(sizeBytes / KiB).keys()].filter(isDifferent);
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
