/** `veneer unmount` */
import { Command } from 'commander';
import { absolutePath } from '../base/given-names.ts';
import { endMount } from '../mounts/end.ts';
import { say } from './output.ts';

export function unmountCommand(): Command {
  return new Command('unmount')
    .description('unmount what veneer mount has mounted')
    .argument('<mountpoint>')
    .option('--lazy', 'even if files in it are open')
    .action(async (mountpoint: string, flags: { lazy?: boolean }) => {
      await endMount(absolutePath(mountpoint), flags.lazy === true);
      say(`${mountpoint} is unmounted`);
    });
}
