/** `veneer plugin create|show` */
import { Command, Option } from 'commander';
import { formatBytes, parseSize } from '../base/units.ts';
import { formatNames, synthesizeFiles, type FormatName } from '../native/formats.ts';
import { createPluginFile } from '../plugin/create.ts';
import { readPluginFile, writeModes, type PluginFile, type WriteMode } from '../plugin/plugin-file.ts';

export function pluginCommand(): Command {
  return new Command('plugin')
    .description('make and explain plugin files')
    .addCommand(createCommand())
    .addCommand(showCommand());
}

interface CreateFlags {
  readonly format?: FormatName;
  readonly layout?: string;
  readonly write?: WriteMode;
  readonly force?: boolean;
}

function createCommand(): Command {
  return new Command('create')
    .description('make the small file that stands for a disk file')
    .argument('<image>', 'the restore point: an image, whose parents lie beside it')
    .argument('<plugin>', 'the plugin file to make; its extension chooses the format')
    .addOption(new Option('--format <name>', 'when the extension does not say').choices(formatNames))
    .option('--layout <name>', 'fixed: every block at its place; dynamic: blocks without data are left out')
    .option('--payload-block-size <size>', 'payload block, grain or cluster of the format')
    .addOption(
      new Option(
        '--write <mode>',
        'writes are kept (intercept), dropped at unmount (discard) or refused (none)',
      ).choices(writeModes),
    )
    .option('--force', 'replace the plugin file if it exists')
    .action((image: string, plugin: string, flags: CreateFlags & { payloadBlockSize?: string }) => {
      const made = createPluginFile(image, plugin, {
        ...(flags.format === undefined ? {} : { format: flags.format }),
        ...(flags.layout === undefined ? {} : { layout: flags.layout }),
        ...(flags.payloadBlockSize === undefined
          ? {}
          : { unitBytes: parseSize(flags.payloadBlockSize, '--payload-block-size') }),
        ...(flags.write === undefined ? {} : { write: flags.write }),
        ...(flags.force === undefined ? {} : { force: flags.force }),
      });
      console.log(
        `${plugin}: stands for a ${made.native.format} file (${made.native.layout}) of a disk of ${formatBytes(made.disk.sizeBytes)}, from ${made.image.path}`,
      );
      if (made.image.path.startsWith('..')) {
        console.error(`${plugin}: the image lies outside its folder; mount with --allow-path to let it be read`);
      }
    });
}

function showCommand(): Command {
  return new Command('show')
    .description('explain a plugin file')
    .argument('<plugin>')
    .option('--json', 'for programs')
    .action((file: string, flags: { json?: boolean }) => {
      const plugin = readPluginFile(file);
      console.log(flags.json === true ? JSON.stringify(plugin, null, 2) : pluginText(plugin, file));
    });
}

function pluginText(plugin: PluginFile, file: string): string {
  const { native } = plugin;
  const made = synthesizeFiles(native, file.replace(/^.*\//, ''));
  const rows = [
    ['reads as', made.map((part) => `${part.name}, ${formatBytes(part.map.sizeBytes)}`).join('; ')],
    ['format', `${native.format}, ${native.layout}`],
    ['disk', `${formatBytes(plugin.disk.sizeBytes)} (${plugin.disk.sizeBytes} bytes), a ${plugin.disk.content}`],
    ['image', `${plugin.image.path}, made ${plugin.image.createdAt}`],
    ['image id', plugin.image.imageId],
    ['writes', plugin.write ?? 'intercept'],
  ];
  return rows.map(([name, value]) => `${(name ?? '').padEnd(10)}${value ?? ''}`).join('\n');
}
