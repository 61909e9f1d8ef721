/**
 * The guest's own initramfs, as far as it can be seen: which modules it has, and how its folders are laid. It is one archive after another;
 * the last may be compressed. And the one that is loaded besides it, which the kernel unpacks over it.
 */
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { FormatError, UnsupportedError, VeneerError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import { fileMode, folderMode, readCpio, writeCpio, type CpioEntry } from './cpio.ts';
import { moduleName, writeIndexes, type IndexedModule } from './module-index.ts';
import { readModule, type KernelModules } from './modules.ts';

export interface InitramfsContents {
  /** Where its modules lie: `usr/lib/modules/6.1.0-13-amd64`. */
  readonly moduleFolder: string | undefined;
  /** Module files from that folder. */
  readonly modules: readonly string[];
  /** The list of initramfs-tools that is loaded whatever the hardware. */
  readonly alwaysLoaded: string | undefined;
}

/** Of the file; distributions with all firmware make it large. */
export const maxInitramfsBytes = 256 * MiB;
const maxUnpackedBytes = 512 * MiB;
const maxListBytes = MiB;
const alwaysLoadedPath = 'conf/modules';

/** @throws UnsupportedError where it is compressed in a way that Node does not know; FormatError where it is broken */
export function readInitramfs(bytes: Uint8Array): InitramfsContents {
  const modules: string[] = [];
  let moduleFolder: string | undefined;
  let alwaysLoaded: string | undefined;
  for (const { name, data } of entriesOf(bytes)) {
    const [, folder, file] = /^((?:usr\/)?lib\/modules\/[^/]+)\/(.+\.ko(?:\.(?:gz|xz|zst))?)$/.exec(name) ?? [];
    if (folder !== undefined && file !== undefined) {
      moduleFolder = folder;
      modules.push(file);
    } else if (name === alwaysLoadedPath && data.length <= maxListBytes)
      alwaysLoaded = Buffer.from(data).toString('latin1');
  }
  return { moduleFolder, modules, alwaysLoaded };
}

/** Archives behind one another; what is compressed is unpacked once. */
function* entriesOf(bytes: Uint8Array, unpacked = false): Generator<CpioEntry, undefined> {
  let at = 0;
  while (at < bytes.length) {
    if (bytes[at] === 0) at++;
    else if (Buffer.from(bytes.subarray(at, at + 5)).toString('latin1') === '07070') at = yield* readCpio(bytes, at);
    else if (unpacked) throw new FormatError('initramfs', 'archive', at, 'is followed by something else');
    else return yield* entriesOf(unpack(bytes.subarray(at)), true);
  }
  return undefined;
}

function unpack(packed: Uint8Array): Uint8Array {
  const start = Buffer.from(packed.subarray(0, 6)).toString('hex');
  const limit = { maxOutputLength: maxUnpackedBytes };
  try {
    if (start.startsWith('1f8b')) return checkUnpacked(gunzipSync(packed, limit));
    if (start.startsWith('28b52ffd')) return checkUnpacked(zstdDecompressSync(packed, limit));
  } catch (error) {
    if (error instanceof VeneerError) throw error;
    throw new FormatError('initramfs', 'compressed part', 0, 'cannot be unpacked', { cause: error });
  }
  const names: Readonly<Record<string, string>> = {
    fd377a585a00: 'xz',
    '02214c18': 'lz4',
    '425a68': 'bzip2',
    '5d0000': 'lzma',
    '894c5a4f': 'lzo',
  };
  const name = Object.entries(names).find(([magic]) => start.startsWith(magic))?.[1] ?? 'something unknown';
  throw new UnsupportedError(`the guest's initramfs is compressed by ${name}, into which is not looked`);
}

/** What is unpacked is an archive: nothing is packed twice. */
function checkUnpacked(bytes: Uint8Array): Uint8Array {
  if (Buffer.from(bytes.subarray(0, 5)).toString('latin1') === '07070') return bytes;
  throw new FormatError('initramfs', 'compressed part', 0, 'holds no archive');
}

/**
 * An initramfs that adds modules to the guest's own; not compressed.
 *
 * - Modules lie where its own do; without a look into it, where the guest's root has them.
 * - No folder is named that may be a link there (/lib): the kernel would put a folder in the link's place.
 * - Indexes are written for its modules and these; where it could not be read, they are the guest's own for all modules.
 */
export function additionalInitramfs(
  kernel: KernelModules,
  modules: readonly string[],
  own: InitramfsContents | undefined,
  libIsLink: boolean,
): Uint8Array {
  const base = own?.moduleFolder ?? `${libIsLink ? 'usr/' : ''}lib/modules/${kernel.version}`;
  const added = modules.map((name) => ({
    name,
    file: kernel.files.get(name)?.file ?? '',
    data: readModule(kernel, name),
  }));
  const files: CpioEntry[] = added.map(({ file, data }) => ({ name: `${base}/${file}`, mode: fileMode, data }));
  for (const [name, data] of indexesFor(kernel, modules, own))
    files.push({ name: `${base}/${name}`, mode: fileMode, data });
  if (own?.alwaysLoaded !== undefined) {
    const list = `${own.alwaysLoaded.replace(/\n?$/, '\n')}${modules.join('\n')}\n`;
    files.push({ name: alwaysLoadedPath, mode: fileMode, data: Buffer.from(list, 'latin1') });
  }
  return writeCpio([...foldersOf(files.map(({ name }) => name)), ...files]);
}

function indexesFor(
  kernel: KernelModules,
  modules: readonly string[],
  own: InitramfsContents | undefined,
): ReadonlyMap<string, Uint8Array> {
  if (own === undefined) {
    const names = [
      'modules.dep',
      'modules.dep.bin',
      'modules.alias',
      'modules.alias.bin',
      'modules.softdep',
      'modules.order',
    ];
    const present = names.filter((name) => kernel.fileSystem.stat(`${kernel.folder}/${name}`)?.type === 'file');
    return new Map(present.map((name) => [name, kernel.fileSystem.readFile(`${kernel.folder}/${name}`, 64 * MiB)]));
  }
  // Its own files keep their names, which may differ from the guest's by how they are packed.
  const placed = new Map(own.modules.map((file) => [moduleName(file), file]));
  for (const name of modules) if (!placed.has(name)) placed.set(name, kernel.files.get(name)?.file ?? '');
  const indexed: IndexedModule[] = [...placed].map(([name, file]) => {
    const needs = kernel.files.get(name)?.needs ?? [];
    return { name, file, needs: needs.flatMap((need) => placed.get(moduleName(need)) ?? []) };
  });
  return writeIndexes(indexed, kernel.aliases);
}

/** Each folder above the files once, those above first; but not the first two of lib/modules or usr/lib/modules. */
function foldersOf(names: readonly string[]): CpioEntry[] {
  const folders = new Set<string>();
  for (const name of names) {
    const parts = name.split('/').slice(0, -1);
    for (let length = 1; length <= parts.length; length++) folders.add(parts.slice(0, length).join('/'));
  }
  return [...folders]
    .filter((folder) => !['usr', 'lib', 'usr/lib'].includes(folder))
    .map((name) => ({ name, mode: folderMode, data: new Uint8Array(0) }));
}
