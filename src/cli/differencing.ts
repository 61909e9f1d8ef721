/** `veneer differencing create` */
import { Command, Option } from 'commander';
import { formatBytes } from '../base/units.ts';
import { assertMayPut } from '../mounts/output-place.ts';
import { formatNames, type FormatName } from '../native/formats.ts';
import { createDifferencingFile } from '../plugin/differencing.ts';
import { hasReplacement } from '../plugin/beside.ts';
import { say, warn } from './output.ts';

export function differencingCommand(): Command {
  return new Command('differencing')
    .description('make differencing disk files over plugin files')
    .addCommand(createCommand());
}

function createCommand(): Command {
  return new Command('create')
    .description('make an empty disk file that holds changes over the one a plugin file stands for')
    .argument('<plugin>', 'the plugin file, in the folder behind the mount')
    .argument('<child>', 'the file to make, in the same folder; its extension chooses the format')
    .addOption(new Option('--format <name>', 'when the extension does not say').choices(formatNames))
    .option('--force', 'replace the child if it exists')
    .action((plugin: string, child: string, flags: { readonly format?: FormatName; readonly force?: boolean }) => {
      assertMayPut(child, { makes: 'disk', force: flags.force === true });
      const made = createDifferencingFile(plugin, child, flags);
      say(
        `${child}: an empty ${made.format} file for changes over ${plugin}, a disk of ${formatBytes(made.plugin.disk.sizeBytes)}; open it under the mount`,
      );
      if (made.parentPaths.some(hasReplacement)) {
        warn(
          `${plugin}: has been written to under a mount; a hypervisor may refuse its children, and none may be used once it is written to again`,
        );
      }
    });
}
