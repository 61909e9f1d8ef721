/** One disk of real files, and the same bytes in the form of each contender. Made once; images again when their code changes. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { availableParallelism } from 'node:os';
import { createImage } from '../src/backup/write/create.ts';
import { synthesizeFiles } from '../src/native/formats.ts';
import { createPluginFile } from '../src/plugin/create.ts';
import { parsePluginFile } from '../src/plugin/plugin-file.ts';
import type { BenchContext } from './context.ts';
import { run } from './processes.ts';

const source = fileURLToPath(new URL('../src', import.meta.url));
const buildData = fileURLToPath(new URL('../examples/data/build-data.sh', import.meta.url));
/** Rooms of src/ that images depend on, and those that plugin files depend on besides. */
export const chainCode = ['bytes', 'disk', 'backup'];
const imageCode = [...chainCode, 'base', 'native', 'plugin'];

export const imageCodecs = ['zstd', 'none'] as const;

/** The raw disk that all else is made of. */
export async function rawDisk({ folder, sizeMib, say, signal }: BenchContext): Promise<string> {
  const file = path.join(folder, 'data', `disk-${sizeMib}.raw`);
  return await once(file, async (unfinished) => {
    say(`making ${sizeMib} MiB of real files`);
    const packages = path.join(folder, '..', 'packages');
    await run('bash', [buildData, unfinished, String(sizeMib), packages], signal);
  });
}

/** The disk as qcow2, all clusters zstd (of qemu-img's own level, 3) or all plain. */
export async function qcow2Disk(context: BenchContext, compressed: boolean): Promise<string> {
  const raw = await rawDisk(context);
  const file = raw.replace(/raw$/, compressed ? 'zstd.qcow2' : 'plain.qcow2');
  const packing = compressed ? ['-c', '-o', 'compression_type=zstd'] : [];
  const workers = String(availableParallelism());
  return await once(file, async (unfinished) => {
    context.say(`making ${path.basename(file)}`);
    const args = ['convert', '-f', 'raw', '-O', 'qcow2', ...packing, '-m', workers, raw, unfinished];
    await run('qemu-img', args, context.signal);
  });
}

/** The disk as EnCase 6, deflate "fast" (what tools offer first), in the usual chunks of 32 KiB. */
export async function ewfDisk(context: BenchContext): Promise<string> {
  const raw = await rawDisk(context);
  return await once(raw.replace(/raw$/, 'E01'), async (unfinished) => {
    context.say('making an E01 image');
    const script = 'ewfacquirestream -q -c fast -S 7E -l /dev/null -t "$2" <"$1" && mv "$2.E01" "$2"';
    await run('bash', ['-c', script, 'bash', raw, unfinished], context.signal);
  });
}

export interface MountFolder {
  readonly folder: string;
  /** The plugin file, and the name of the disk file under the mount. */
  readonly pluginName: string;
  readonly imageName: string;
  /** Where the guest's disk starts in the disk file: a fixed VHDX holds it in one piece. */
  readonly payloadOffsetBytes: number;
}

/** A folder with an image of `raw` and a plugin file for a fixed VHDX. */
export async function mountFolder(
  context: BenchContext,
  raw: string,
  codec: (typeof imageCodecs)[number],
): Promise<MountFolder> {
  const base = path.join(context.folder, 'images');
  const folder = path.join(base, `${codeKey(imageCode)}-${codec}-${path.basename(raw, '.raw')}`);
  removeOthers(base, `${codeKey(imageCode)}-`);
  fs.mkdirSync(folder, { recursive: true });
  const image = await once(path.join(folder, 'disk.spf'), async (unfinished) => {
    context.say(`making an image (${codec})`);
    await createImage(raw, unfinished, { codec, force: true });
  });
  const pluginName = 'disk.vhdx';
  const plugin = path.join(folder, pluginName);
  if (!fs.existsSync(plugin)) createPluginFile(image, plugin, { layout: 'fixed' });
  const { native } = parsePluginFile(fs.readFileSync(plugin), plugin);
  const ranges = [...(synthesizeFiles(native, pluginName)[0]?.map.diskRanges() ?? [])];
  const offsets = new Set(ranges.map((range) => range.fileOffset - range.diskOffset));
  const [payloadOffsetBytes] = offsets;
  if (offsets.size !== 1 || payloadOffsetBytes === undefined) throw new Error('the VHDX holds the disk in pieces');
  return { folder, pluginName, imageName: path.basename(image), payloadOffsetBytes };
}

/** Changes with the code in these rooms. */
export function codeKey(rooms: readonly string[]): string {
  const hash = createHash('sha256');
  for (const room of rooms) {
    for (const name of fs.readdirSync(path.join(source, room), { recursive: true, encoding: 'utf8' }).sort()) {
      if (name.endsWith('.ts')) hash.update(name).update(fs.readFileSync(path.join(source, room, name)));
    }
  }
  return hash.digest('hex').slice(0, 12);
}

/** Makes a file under another name and renames it, so that it is whole or not there. */
export async function once(file: string, make: (unfinished: string) => Promise<void>): Promise<string> {
  if (fs.existsSync(file)) return file;
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const unfinished = `${file}.unfinished`;
  try {
    await make(unfinished);
    fs.renameSync(unfinished, file);
  } finally {
    fs.rmSync(unfinished, { force: true });
  }
  return file;
}

/** Removes what earlier states of the code made. */
export function removeOthers(folder: string, keptPrefix: string): void {
  for (const name of fs.existsSync(folder) ? fs.readdirSync(folder) : []) {
    if (!name.startsWith(keptPrefix)) fs.rmSync(path.join(folder, name), { recursive: true, force: true });
  }
}
