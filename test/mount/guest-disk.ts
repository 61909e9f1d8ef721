/** A guest's disk with seeded contents, its image backups, and plugin files over them: what the mount's tests look at. */
import fs from 'node:fs';
import path from 'node:path';
import { writeFully } from '../../src/base/full-io.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { closing } from '../../src/base/ownership.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { synthesizeFiles } from '../../src/native/formats.ts';
import type { SegmentMap } from '../../src/native/segment-map.ts';
import { createPluginFile, type PluginOptions } from '../../src/plugin/create.ts';
import { parsePluginFile } from '../../src/plugin/plugin-file.ts';
import { materialize, writeGolden } from '../native/golden.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

/** Not a whole number of anything but sectors. */
export const diskBytes = 24 * MiB + 512;

/** Writes the raw disk that the images are made of. */
export function writeDisk(file: string, seed: string, sizeBytes = diskBytes): void {
  const random = new Seeded(seed);
  writeGolden(file, sizeBytes, random);
  change(file, 3 * MiB, random.compressibleBytes(2 * MiB));
}

/** Overwrites a part of a file. */
export function change(file: string, offset: number, bytes: Uint8Array): void {
  const fd = fs.openSync(file, 'r+');
  try {
    writeFully(fd, bytes, offset, file);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Makes `vm.spf`, `vm.spi` on it, and the plugin files `vm.vhdx` (fixed) and `thin.vhdx` (dynamic) over the newer one.
 * @param raw is written: the disk as of `vm.spi`
 */
export async function writeGuest(folder: string, raw: string, seed = 'guest'): Promise<void> {
  const made = await (madeGuests.get(seed) ?? makeGuest(seed));
  for (const name of made.names()) fs.copyFileSync(made.file(name), name === rawName ? raw : path.join(folder, name));
}

/** By seed: each is made once for all tests of a file. */
const madeGuests = new Map<string, Promise<TempFolder>>();
const rawName = 'disk.raw';

function makeGuest(seed: string): Promise<TempFolder> {
  const folder = new TempFolder();
  const made = makeGuestIn(folder.path, folder.file(rawName), seed).then(() => folder);
  madeGuests.set(seed, made);
  return made;
}

async function makeGuestIn(folder: string, raw: string, seed: string): Promise<void> {
  writeDisk(raw, seed);
  const full = path.join(folder, 'vm.spf');
  const newest = path.join(folder, 'vm.spi');
  await createImage(raw, full);
  const random = new Seeded(`${seed} later`);
  for (const offset of [0, 7 * MiB - 700, 20 * MiB + 3]) change(raw, offset, random.bytes(130 * KiB));
  await createImage(raw, newest, { parent: full });
  writePlugin(newest, path.join(folder, 'vm.vhdx'));
  writePlugin(newest, path.join(folder, 'thin.vhdx'), { layout: 'dynamic', unitBytes: MiB });
}

/** Small payload blocks, so that the file is hardly larger than its disk. */
export function writePlugin(image: string, plugin: string, options: PluginOptions = {}): void {
  createPluginFile(image, plugin, { unitBytes: MiB, ...options });
}

/** The native file that a plugin file stands for. */
export function mapOf(plugin: string): SegmentMap {
  const [file] = synthesizeFiles(parsePluginFile(fs.readFileSync(plugin), plugin).native, path.basename(plugin));
  if (file === undefined) throw new Error(`${plugin} stands for no file`);
  return file.map;
}

/** Writes what a plugin file must read as, with no image and no mount: its map over the raw disk. */
export function writeExpected(plugin: string, raw: string, out: string): void {
  using disk = closing(openFileDisk(raw));
  materialize(mapOf(plugin), disk.value, out);
}

/** Reads a range, at most to the end of the file. `flags` as open(2) takes them. */
export async function readPart(
  file: string,
  offset: number,
  length: number,
  flags: string | number = 'r',
): Promise<Buffer> {
  const handle = await fs.promises.open(file, flags);
  try {
    return await readFrom(handle, offset, length);
  } finally {
    await handle.close();
  }
}

/** The same from a file that is open. */
export async function readFrom(handle: fs.promises.FileHandle, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length, 0xa5);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(target, done, length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return target.subarray(0, done);
}
