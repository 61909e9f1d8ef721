/** `veneer files ls|stat|cat|find` */
import { Command, Option } from 'commander';
import { z } from 'zod';
import { GuestTree, type BrowsedVolume, type FoundNode } from '../browse/guest-tree.ts';
import { findIn, type FindRules } from '../browse/find.ts';
import { UsageError } from '../base/errors.ts';
import { printable } from '../base/printable.ts';
import { closing } from '../base/ownership.ts';
import { formatBytes, MiB } from '../base/units.ts';
import { openAnyDisk } from '../plugin/open-any-disk.ts';
import { sourceFormatNames } from '../source/formats.ts';
import { bytesOption, foldersOption } from './arguments.ts';
import { keysFor, withKeyOptions, type KeyFlags } from './keys.ts';
import { say, sayBytes, sayJson, warn, type Told } from './output.ts';

const readBytes = MiB;
const sourceText = 'an image, a plugin file, or a disk file of any format that is read';

interface SourceFlags extends KeyFlags {
  readonly volume?: string;
  readonly sourceFormat?: string;
  readonly allowPath: readonly string[];
}

interface ListFlags extends SourceFlags {
  readonly json?: boolean;
}

interface FindFlags extends ListFlags {
  readonly name?: string;
  readonly type?: FindRules['type'];
  readonly larger?: number;
}

const nodeTypes = ['file', 'folder', 'link', 'pipe', 'socket', 'character device', 'block device', 'other'] as const;

/** Times in nanoseconds since 1970, in decimal digits; what the file system does not keep is absent. */
const nodeSchema = z.object({
  path: z.string(),
  type: z.enum(nodeTypes),
  sizeBytes: z.number(),
  links: z.number(),
  /** As chmod has them: `0644`. */
  permissions: z.string().optional(),
  uid: z.number().optional(),
  gid: z.number().optional(),
  modifiedNs: z.string().optional(),
  changedNs: z.string().optional(),
  accessedNs: z.string().optional(),
  bornNs: z.string().optional(),
  /** Of a link. */
  target: z.string().optional(),
  device: z.object({ major: z.number(), minor: z.number() }).optional(),
});

/** `files ls`, `files stat` and `files find`. */
export const filesSchema = z.object({ files: z.array(nodeSchema) });

/** `files volumes`. */
export const volumesSchema = z.object({
  volumes: z.array(
    z.object({
      name: z.string(),
      sizeBytes: z.number(),
      fileSystem: z.string().optional(),
      label: z.string().optional(),
      uuid: z.string().optional(),
      mountpoints: z.array(z.string()),
      /** Why it is not read. */
      problem: z.string().optional(),
    }),
  ),
  warnings: z.array(z.string()),
});

export function filesCommand(): Command {
  return new Command('files')
    .description('the files of a disk, read without a hypervisor and without a mount')
    .addCommand(volumesCommand())
    .addCommand(listCommand())
    .addCommand(statCommand())
    .addCommand(catCommand())
    .addCommand(findCommand());
}

function withSourceOptions(command: Command): Command {
  command
    .addOption(
      new Option('--volume <name>', 'its name, number, label or UUID (see files volumes); paths begin at its root'),
    )
    .addOption(
      new Option('--source-format <name>', 'what a disk file is, when its name does not say').choices(
        sourceFormatNames,
      ),
    )
    .addOption(
      foldersOption('--allow-path <folder>', 'what a plugin file points to may lie there too (may be repeated)'),
    );
  return withKeyOptions(command);
}

function volumesCommand(): Command {
  const command = new Command('volumes')
    .description('the volumes of a disk, and where its system has them')
    .argument('<source>', sourceText)
    .option('--json', 'for programs');
  return withSourceOptions(command).action(async (source: string, flags: ListFlags) => {
    await withTree(source, flags, (tree) => {
      if (flags.json === true)
        sayJson(volumesSchema, { volumes: tree.volumes.map(volumeJson), warnings: tree.warnings });
      else say(...tree.volumes.map(volumeText));
    });
  });
}

function listCommand(): Command {
  const command = new Command('ls')
    .description('what a folder holds')
    .argument('<source>', sourceText)
    .argument('[path]', 'as the guest has it: /var/log, C:\\Users', '/')
    .option('--json', 'for programs');
  return withSourceOptions(command).action(async (source: string, path: string, flags: ListFlags) => {
    await withTree(source, flags, (tree) => {
      const folder = tree.find(path, flags);
      const found =
        folder.stat.type === 'folder' ? tree.list(folder, complainOfFile) : [{ name: folder.path, found: folder }];
      const sorted = found.sort((a, b) => (a.name < b.name ? -1 : 1));
      if (flags.json === true) sayJson(filesSchema, { files: sorted.map((entry) => nodeJson(entry.found)) });
      else say(...sorted.map((entry) => nodeText(entry.found, entry.name)));
    });
  });
}

function statCommand(): Command {
  const command = new Command('stat')
    .description('what a disk tells of files; links are not followed')
    .argument('<source>', sourceText)
    .argument('<path...>', 'as the guest has them')
    .option('--json', 'for programs');
  return withSourceOptions(command).action(async (source: string, paths: readonly string[], flags: ListFlags) => {
    await withTree(source, flags, (tree) => {
      const found = paths.map((path) => tree.find(path, { ...flags, follow: false }));
      if (flags.json === true) sayJson(filesSchema, { files: found.map(nodeJson) });
      else say(...found.map((node) => nodeText(node, node.path)));
    });
  });
}

function catCommand(): Command {
  const command = new Command('cat')
    .description('the bytes of files, one after another')
    .argument('<source>', sourceText)
    .argument('<path...>', 'as the guest has them');
  return withSourceOptions(command).action(async (source: string, paths: readonly string[], flags: SourceFlags) => {
    await withTree(source, flags, (tree) => {
      // All are there before the first byte of one is written.
      const files = paths.map((path) => openFile(tree.find(path, flags)));
      for (const file of files) {
        const bytes = new Uint8Array(Math.min(readBytes, file.sizeBytes));
        for (let at = 0; at < file.sizeBytes; at += readBytes) {
          const part = bytes.subarray(0, Math.min(readBytes, file.sizeBytes - at));
          file.read(part, at);
          if (!sayBytes(part)) return;
        }
      }
    });
  });
}

function findCommand(): Command {
  const command = new Command('find')
    .description('files below a folder, links not followed; without a path, on the whole disk')
    .argument('<source>', sourceText)
    .argument('[path]', 'as the guest has it')
    .option('--name <pattern>', 'whose last name is like this: * stands for any characters, ? for one')
    .addOption(new Option('--type <type>', 'of this type').choices(['file', 'folder', 'link']))
    .addOption(bytesOption('--larger <size>', 'files of more bytes'))
    .option('--json', 'for programs');
  return withSourceOptions(command).action(async (source: string, path: string | undefined, flags: FindFlags) => {
    await withTree(source, flags, (tree) => {
      const { name, type, larger } = flags;
      const rules: FindRules = { name, type, largerBytes: larger };
      const roots = path === undefined ? tree.roots(flags.volume) : [tree.find(path, flags)];
      const found = findIn(tree, roots, rules, complainOfFile);
      if (flags.json === true) sayJson(filesSchema, { files: Array.from(found, nodeJson) });
      else for (const node of found) if (!sayBytes(Buffer.from(`${printable(node.path)}\n`))) return;
    });
  });
}

async function withTree(source: string, flags: SourceFlags, use: (tree: GuestTree) => void): Promise<void> {
  const { allowPath: allowPaths, sourceFormat } = flags;
  const keys = await keysFor(source, flags);
  const options = { keys, allowPaths, ...(sourceFormat === undefined ? {} : { sourceFormat }) };
  using disk = closing(openAnyDisk(source, options));
  const tree = new GuestTree(disk.value);
  warn(...tree.warnings.map((text) => `veneer: ${text}`));
  use(tree);
}

/** The others are told; that one is missing, the exit status says as well. */
function complainOfFile(text: string): void {
  warn(`veneer: ${text}`);
  process.exitCode = 1;
}

function openFile({ fileSystem, node, stat, path }: FoundNode): ReturnType<typeof fileSystem.open> {
  if (stat.type !== 'file') throw new UsageError(`${path}: is a ${stat.type}, and no file`);
  return fileSystem.open(node);
}

function volumeJson(volume: BrowsedVolume): Told<z.input<typeof volumesSchema>>['volumes'][number] {
  const { name, sizeBytes, fileSystem, problem, mountpoints } = volume;
  return {
    ...{ name, sizeBytes, mountpoints },
    ...(fileSystem === undefined
      ? {}
      : { fileSystem: fileSystem.kind, label: fileSystem.label, uuid: fileSystem.uuid }),
    ...(problem === undefined ? {} : { problem }),
  };
}

function volumeText({ name, sizeBytes, fileSystem, problem, mountpoints }: BrowsedVolume): string {
  const label = fileSystem === undefined || fileSystem.label === '' ? '' : ` "${fileSystem.label}"`;
  const what = fileSystem === undefined ? (problem ?? '') : `${fileSystem.kind}${label}`;
  return `${name.padEnd(16)}${formatBytes(sizeBytes).padStart(10)}  ${what}${mountpoints.length === 0 ? '' : `  at ${mountpoints.join(', ')}`}`;
}

function nodeJson(found: FoundNode): Told<z.input<typeof nodeSchema>> {
  const { path, stat } = found;
  const { type, sizeBytes, links, permissions, owner, device } = stat;
  const times = {
    modifiedNs: stat.modifiedNs,
    changedNs: stat.changedNs,
    accessedNs: stat.accessedNs,
    bornNs: stat.bornNs,
  };
  const known = Object.entries(times).flatMap(([name, ns]) => (ns === undefined ? [] : [[name, String(ns)] as const]));
  return {
    ...{ path, type, sizeBytes, links },
    ...(permissions === undefined ? {} : { permissions: permissions.toString(8).padStart(4, '0') }),
    ...owner,
    ...Object.fromEntries(known),
    ...(type === 'link' ? { target: targetOf(found) } : {}),
    ...(device === undefined ? {} : { device }),
  };
}

/** As `ls -l` tells it, in UTC. */
function nodeText(found: FoundNode, name: string): string {
  const { type, sizeBytes, links, permissions, owner, modifiedNs, device } = found.stat;
  const size = device === undefined ? String(sizeBytes) : `${device.major},${device.minor}`;
  const columns = [
    modeText(type, permissions),
    String(links).padStart(3),
    owner === undefined ? '-' : `${owner.uid}:${owner.gid}`.padEnd(11),
    size.padStart(12),
    modifiedNs === undefined ? '-'.padEnd(20) : timeText(modifiedNs),
    type === 'link' ? `${name} -> ${targetOf(found)}` : name,
  ];
  return columns.join(' ');
}

function targetOf({ fileSystem, node }: FoundNode): string {
  return fileSystem.readLink(node);
}

const typeLetters: Readonly<Record<(typeof nodeTypes)[number], string>> = {
  file: '-',
  folder: 'd',
  link: 'l',
  pipe: 'p',
  socket: 's',
  'character device': 'c',
  'block device': 'b',
  other: '?',
};

function modeText(type: (typeof nodeTypes)[number], permissions: number | undefined): string {
  if (permissions === undefined) return `${typeLetters[type]}---------`;
  const groups = [6, 3, 0].map((shift, index) => {
    const bits = (permissions >>> shift) & 7;
    const special = ((permissions >>> (11 - index)) & 1) === 1;
    const [on, off] = index === 2 ? ['t', 'T'] : ['s', 'S'];
    const run = (bits & 1) === 0 ? (special ? off : '-') : special ? on : 'x';
    return `${(bits & 4) === 0 ? '-' : 'r'}${(bits & 2) === 0 ? '-' : 'w'}${run}`;
  });
  return typeLetters[type] + groups.join('');
}

function timeText(ns: bigint): string {
  const date = new Date(Number(ns / 1_000_000n));
  return Number.isNaN(date.getTime()) ? `@${ns / 1_000_000_000n}` : `${date.toISOString().slice(0, 19)}Z`;
}
