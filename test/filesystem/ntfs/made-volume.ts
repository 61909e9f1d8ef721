/** NTFS volumes that mkntfs makes and ntfs-3g, which is FUSE and no kernel's file system, fills. */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { TestContext } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { TempFolder } from '../../temp-folder.ts';
import { skipWithout } from '../../guest/windows/hives.ts';

export interface MadeVolume {
  /** A raw file of the volume alone. */
  readonly image: string;
  readonly folder: TempFolder;
}

export interface VolumeOptions {
  readonly sizeBytes?: number;
  readonly clusterBytes?: number;
  readonly label?: string;
  /** Of ntfs-3g: `permissions` has it keep descriptors in $Secure, as Windows does. */
  readonly mountOptions?: string;
  /** Files by path. */
  readonly files?: Readonly<Record<string, Uint8Array | string>>;
  /** Anything else, with the mounted volume. */
  readonly fill?: (mountpoint: string) => void;
}

/** Makes a volume; skips the test where a program or FUSE is missing. */
export function makeVolume(context: TestContext, folder: TempFolder, options: VolumeOptions): MadeVolume {
  skipWithout(context, ['mkntfs', 'ntfs-3g', 'ntfscat', 'ntfsfix', 'fusermount3']);
  if (!fs.existsSync('/dev/fuse') || process.getuid?.() !== 0) context.skip('ntfs-3g needs /dev/fuse and root');
  const image = folder.write('volume.raw', '');
  fs.truncateSync(image, options.sizeBytes ?? 64 * MiB);
  execFileSync(
    'mkntfs',
    [
      '-F',
      '-Q',
      '-q',
      '-L',
      options.label ?? 'Windows',
      '-c',
      String(options.clusterBytes ?? 4096),
      '-p',
      '0',
      '-H',
      '16',
      '-S',
      '63',
      image,
    ],
    { stdio: 'pipe' },
  );
  const mountpoint = folder.file('mounted');
  fs.mkdirSync(mountpoint);
  execFileSync('ntfs-3g', ['-o', options.mountOptions ?? 'compression', image, mountpoint], { stdio: 'pipe' });
  try {
    for (const [name, contents] of Object.entries(options.files ?? {})) {
      fs.mkdirSync(path.join(mountpoint, path.dirname(name)), { recursive: true });
      fs.writeFileSync(path.join(mountpoint, name), contents);
    }
    options.fill?.(mountpoint);
  } finally {
    execFileSync('umount', [mountpoint]);
  }
  return { image, folder };
}

/** A file's bytes as ntfs-3g reads them. */
export function catFile(image: string, name: string): Buffer {
  return execFileSync('ntfscat', [image, name], { maxBuffer: 256 * MiB });
}

/** What ntfsfix says of the volume, which it does not change: empty when all is well. */
export function faultsOf(image: string): string {
  const { status, stdout, stderr } = spawnSync('ntfsfix', ['-n', image], { encoding: 'utf8' });
  return status === 0 && /processed successfully/.test(stdout) ? '' : `${stdout}${stderr}`;
}

/** Makes files and takes them away again: as many file records are free then. */
export function leaveFreeRecords(mountpoint: string, count: number): void {
  const folder = path.join(mountpoint, 'gone');
  fs.mkdirSync(folder);
  for (let index = 0; index < count; index++) fs.writeFileSync(path.join(folder, `file${index}`), '');
  fs.rmSync(folder, { recursive: true });
}
