/** `veneer plugin create|show` */
import path from 'node:path';
import { Command, Option } from 'commander';
import { UsageError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { formatNames, synthesizeFiles, type FormatName } from '../native/formats.ts';
import { firmwares, partitionStyles, type Firmware, type PartitionStyle } from '../bootable/geometry.ts';
import { createPluginFile } from '../plugin/create.ts';
import type { BootOptions } from '../plugin/create-bootable.ts';
import {
  readPluginFile,
  replacementKinds,
  sourcesOf,
  writeModes,
  writtenForm,
  writtenSchema,
  type PluginFile,
  type ReplacementKind,
  type WriteMode,
} from '../plugin/plugin-file.ts';
import type { SourceAddress } from '../source/address.ts';
import { sourceFormatNames } from '../source/formats.ts';
import { behindMount } from '../mounts/behind-mount.ts';
import { assertMayPut } from '../mounts/output-place.ts';
import { bytesOption, collect } from './arguments.ts';
import { keysFor, withKeyOptions, type KeyFlags } from './keys.ts';
import { say, sayJson, warn } from './output.ts';

export function pluginCommand(): Command {
  return new Command('plugin')
    .description('make and explain plugin files')
    .addCommand(createCommand())
    .addCommand(showCommand());
}

interface CreateFlags extends KeyFlags {
  readonly format?: FormatName;
  readonly sourceFormat?: string;
  readonly layout?: string;
  readonly payloadBlockSize?: number;
  readonly write?: WriteMode;
  readonly replacement?: ReplacementKind;
  readonly boot?: Firmware;
  readonly partitionStyle?: PartitionStyle;
  readonly volume: readonly string[];
  readonly kernelArguments?: string;
  readonly force?: boolean;
}

function createCommand(): Command {
  const command = new Command('create')
    .description('make the small file that stands for a disk file')
    .usage('[options] <source> <plugin>, or [options] --boot <firmware> --volume <image>... <plugin>')
    .argument(
      '<source>',
      'the restore point: an image, whose parents lie beside it; or a native disk file, which is shown as another',
    )
    .argument('[plugin]', 'the plugin file to make; its extension chooses the format')
    .addOption(new Option('--format <name>', 'when the extension does not say').choices(formatNames))
    .addOption(
      new Option('--source-format <name>', 'what a native disk file is, whatever its name and its content say').choices(
        sourceFormatNames,
      ),
    )
    .option('--layout <name>', 'fixed: every block at its place; dynamic: blocks without data are left out')
    .addOption(bytesOption('--payload-block-size <size>', 'payload block, grain or cluster of the format'))
    .addOption(
      new Option(
        '--write <mode>',
        'writes are kept (intercept), dropped at unmount (discard) or refused (none)',
      ).choices(writeModes),
    )
    .addOption(
      new Option(
        '--replacement <kind>',
        'of an encrypted image: what is written, filled or made of its guest is kept sealed with its key, or plain',
      ).choices(replacementKinds),
    )
    .addOption(
      new Option('--boot <firmware>', 'make a disk that boots around an image of a single volume').choices(firmwares),
    )
    .addOption(
      new Option('--partition-style <style>', 'with --boot (default: mbr for bios, gpt for uefi)').choices(
        partitionStyles,
      ),
    )
    .option(
      '--volume <image>',
      "with --boot: a further volume of the disk (may be repeated); with no other image, the first is the system's",
      collect,
      [],
    )
    .option('--kernel-arguments <text>', 'with --boot, for a Linux that has no boot menu of its own')
    .option('--force', 'replace the plugin file if it exists');
  return withKeyOptions(command).action(async (first: string, second: string | undefined, flags: CreateFlags) => {
    const { image, plugin, furtherImages } = namesOf(first, second, flags.volume);
    const boot = bootOf(flags, furtherImages);
    assertMayPut(plugin, { makes: 'plugin file', force: flags.force === true });
    const made = createPluginFile(image, plugin, {
      ...(flags.format === undefined ? {} : { format: flags.format }),
      ...(flags.sourceFormat === undefined ? {} : { sourceFormat: flags.sourceFormat }),
      ...(flags.layout === undefined ? {} : { layout: flags.layout }),
      ...(flags.payloadBlockSize === undefined ? {} : { unitBytes: flags.payloadBlockSize }),
      ...(flags.write === undefined ? {} : { write: flags.write }),
      ...(flags.replacement === undefined ? {} : { replacement: flags.replacement }),
      ...(boot === undefined ? {} : { boot, keys: await keysFor(image, flags) }),
      ...(flags.force === undefined ? {} : { force: flags.force }),
      knownAs: behindMount(plugin),
      onUntold: (folder) =>
        warn(
          `${plugin}: ${folder} cannot be written to, and so does not know of it; whoever removes images there must`,
        ),
    });
    say(
      `${plugin}: stands for a ${made.native.format} file (${made.native.layout}) of a disk of ${formatBytes(made.disk.sizeBytes)}, from ${sourceNames(made)}`,
    );
    if (made.bootable !== undefined) say(`${plugin}: ${bootText(made.bootable)}`);
    if (sourcesOf(made).some((pointer) => pointer.path.startsWith('..'))) {
      const what = made.source.kind === 'chain' ? 'image' : 'disk file';
      warn(`${plugin}: the ${what} lies outside its folder; mount with --allow-path to let it be read`);
    }
  });
}

/** The images and the plugin file: where all images are named with --volume, the one argument is the plugin file. */
function namesOf(
  first: string,
  second: string | undefined,
  volumes: readonly string[],
): { image: string; plugin: string; furtherImages: readonly string[] } {
  if (second !== undefined) return { image: first, plugin: second, furtherImages: volumes };
  const [system, ...further] = volumes;
  if (system === undefined) throw new UsageError(`${first}: name the plugin file to make as well, e.g. vm.vhdx`);
  return { image: system, plugin: first, furtherImages: further };
}

function bootOf(flags: CreateFlags, furtherImages: readonly string[]): BootOptions | undefined {
  const { boot, partitionStyle, kernelArguments } = flags;
  if (boot === undefined) {
    if (flags.volume.length === 0 && partitionStyle === undefined && kernelArguments === undefined) return undefined;
    throw new UsageError(
      '--volume, --partition-style and --kernel-arguments are for a disk around volumes; add --boot bios or --boot uefi',
    );
  }
  return {
    firmware: boot,
    furtherImages,
    ...(partitionStyle === undefined ? {} : { style: partitionStyle }),
    ...(kernelArguments === undefined ? {} : { kernelArguments }),
  };
}

function sourceNames(plugin: PluginFile): string {
  return sourcesOf(plugin)
    .map((pointer) => pointer.path)
    .join(', ');
}

function sourceRows(source: SourceAddress): string[][] {
  if (source.kind === 'chain')
    return [
      ['image', `${source.path}, made ${source.createdAt}`],
      ['image id', source.imageId],
    ];
  const { path: file, format = 'what it is', sizeBytes, modifiedNs } = source;
  const changed = new Date(Number(BigInt(modifiedNs) / 1_000_000n));
  const when = Number.isNaN(changed.getTime()) ? `${modifiedNs} ns` : changed.toISOString();
  return [['disk file', `${file}, read as ${format}; ${formatBytes(sizeBytes)}, changed ${when}`]];
}

function bootText(bootable: NonNullable<PluginFile['bootable']>): string {
  const { firmware, style, bootFile } = bootable;
  const loader =
    bootFile === undefined ? 'the volumes bring the boot loader' : `GRUB of this host, kept in ${bootFile.name}`;
  return `boots with ${firmware.toUpperCase()} from a disk with ${style === 'mbr' ? 'an MBR' : 'a GPT'}; ${loader}`;
}

function partitionRows(bootable: NonNullable<PluginFile['bootable']>): string[][] {
  const { style, diskSignature, diskGuid } = bootable;
  const name = style === 'mbr' ? `signature ${diskSignature.toString(16).padStart(8, '0')}` : `GUID ${diskGuid}`;
  const rows = bootable.partitions.map((partition, index) => [
    `  ${index + 1}`,
    `${partition.type}${partition.active ? ', active' : ''}, ${formatBytes(partition.sizeBytes)} at ${formatBytes(partition.startBytes)}, ${
      partition.volume === undefined ? 'made' : `volume ${partition.volume}`
    }`,
  ]);
  return [['table', `${style}, ${name}`], ...rows];
}

function showCommand(): Command {
  return new Command('show')
    .description('explain a plugin file')
    .argument('<plugin>')
    .option('--json', 'for programs')
    .action((file: string, flags: { json?: boolean }) => {
      const plugin = readPluginFile(file);
      if (flags.json === true) sayJson(writtenSchema, writtenForm(plugin));
      else say(...pluginText(plugin, file));
    });
}

function pluginText(plugin: PluginFile, file: string): string[] {
  const { native } = plugin;
  const made = synthesizeFiles(native, path.basename(file));
  const rows = [
    ['reads as', made.map((part) => `${part.name}, ${formatBytes(part.map.sizeBytes)}`).join('; ')],
    ['format', `${native.format}, ${native.layout}`],
    ['disk', `${formatBytes(plugin.disk.sizeBytes)} (${plugin.disk.sizeBytes} bytes), a ${plugin.disk.content}`],
    ...(plugin.bootable === undefined ? [] : [['boot', bootText(plugin.bootable)], ...partitionRows(plugin.bootable)]),
    ...sourcesOf(plugin).flatMap(sourceRows),
    ['writes', plugin.write ?? 'intercept'],
    ...(plugin.replacement === undefined ? [] : [['kept', plugin.replacement]]),
    ...(plugin.patchSets ?? []).map(({ target, name }) => [
      'patches',
      `${name}, for ${target}${plugin.replacement === 'sealed' ? ', sealed' : ''}${target === plugin.target ? ', in force' : ''}`,
    ]),
  ];
  return rows.map(([name, value]) => `${(name ?? '').padEnd(10)}${value ?? ''}`);
}
