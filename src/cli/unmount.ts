/** `veneer unmount` */
import path from 'node:path';
import { Command } from 'commander';
import { endMount } from '../mount/end.ts';

export function unmountCommand(): Command {
  return new Command('unmount')
    .description('unmount what veneer mount has mounted')
    .argument('<mountpoint>')
    .option('--lazy', 'even if files in it are open')
    .action(async (mountpoint: string, flags: { lazy?: boolean }) => {
      await endMount(path.resolve(mountpoint), flags.lazy === true);
      console.log(`${mountpoint} is unmounted`);
    });
}
