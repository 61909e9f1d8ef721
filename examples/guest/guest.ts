/**
 * The example guest as files: a bare ext4 volume, and a whole disk around it that a BIOS boots. Built by the shell scripts
 * next to this file, once for each state of the scripts and packages.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { z } from 'zod';

export interface GuestOptions {
  /** generic has the drivers of all buses; cloud builds and boots faster, and has no AHCI driver. */
  readonly flavour: 'cloud' | 'generic';
  /** Folder of the downloaded packages; about 100 MiB for both flavours. */
  readonly cacheDir: string;
  /** Folder of the results. */
  readonly outDir: string;
}

export const fileSystems = ['ext4', 'xfs', 'btrfs'] as const;
export type FileSystem = (typeof fileSystems)[number];

/** A bare volume, with nothing around it. */
export interface GuestVolume {
  readonly path: string;
  readonly kernelVersion: string;
  /** SHA-256 of the guest's /payload.bin, for comparison with what the guest reports. */
  readonly payloadSha256: string;
}

export interface Guest {
  readonly flavour: 'cloud' | 'generic';
  readonly diskPath: string;
  readonly diskBytes: number;
  readonly volumePath: string;
  readonly volumeBytes: number;
  /** Where on the disk the volume starts. */
  readonly partitionOffsetBytes: number;
  readonly kernelVersion: string;
  readonly fsUuid: string;
  /** SHA-256 of the guest's /payload.bin, for comparison with what the guest reports. */
  readonly payloadSha256: string;
}

const scripts = ['fetch-packages.sh', 'build-volume.sh', 'build-disk.sh', 'initramfs-init', 'init'];
const partitionOffsetBytes = 2048 * 512;

const facts = z.object({
  flavour: z.enum(['cloud', 'generic']),
  kernelVersion: z.string(),
  fsUuid: z.string(),
  payloadSha256: z.string(),
  sizeBytes: z.number(),
});

const run = promisify(execFile);

const scriptPath = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Changes with anything that the result depends on. */
async function buildKey(packagePaths: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const name of scripts) hash.update(await readFile(scriptPath(name)));
  for (const path of packagePaths) hash.update(`${basename(path)}\n`);
  return hash.digest('hex').slice(0, 12);
}

/**
 * Builds the guest, or finds it built. Downloads the packages (28 or 72 MB) if the cache has none; then takes 3 to 6
 * seconds, and a few milliseconds when nothing changed. Two callers at the same time, in any processes, are safe: files
 * appear whole, under names that tell their content.
 *
 * Rejects with the script's messages if a package cannot be downloaded or a tool is missing.
 */
export async function buildGuestDisk(options: GuestOptions): Promise<Guest> {
  const bash = async (script: string, ...args: string[]): Promise<string> =>
    (await run('bash', [scriptPath(script), ...args])).stdout;

  const packages = await bash('fetch-packages.sh', options.flavour, options.cacheDir);
  const key = await buildKey(packages.trim().split('\n'));
  const volumePath = join(options.outDir, `guest-${options.flavour}-${key}.ext4`);
  const diskPath = join(options.outDir, `guest-${options.flavour}-${key}.raw`);
  // The disk is written last.
  if (!existsSync(diskPath)) {
    await mkdir(options.outDir, { recursive: true });
    await bash('build-volume.sh', options.flavour, volumePath, options.cacheDir);
    await bash('build-disk.sh', volumePath, diskPath);
  }
  const { flavour, kernelVersion, fsUuid, payloadSha256, sizeBytes } = facts.parse(
    JSON.parse(await readFile(`${volumePath}.json`, 'utf8')),
  );
  return {
    flavour,
    diskPath,
    diskBytes: (await stat(diskPath)).size,
    volumePath,
    volumeBytes: sizeBytes,
    partitionOffsetBytes,
    kernelVersion,
    fsUuid,
    payloadSha256,
  };
}

/** Builds the guest as a bare volume of any of the file systems, or finds it built; the same holds as for the disk. */
export async function buildGuestVolume(options: GuestOptions, fileSystem: FileSystem): Promise<GuestVolume> {
  const bash = async (script: string, ...args: string[]): Promise<string> =>
    (await run('bash', [scriptPath(script), ...args])).stdout;
  const packages = await bash('fetch-packages.sh', options.flavour, options.cacheDir);
  const key = await buildKey(packages.trim().split('\n'));
  const volume = join(options.outDir, `guest-${options.flavour}-${key}.${fileSystem}`);
  // The facts are written last.
  if (!existsSync(`${volume}.json`)) {
    await mkdir(options.outDir, { recursive: true });
    await bash('build-volume.sh', options.flavour, volume, options.cacheDir, '', fileSystem);
  }
  const { kernelVersion, payloadSha256 } = facts.parse(JSON.parse(await readFile(`${volume}.json`, 'utf8')));
  return { path: volume, kernelVersion, payloadSha256 };
}
