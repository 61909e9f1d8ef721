/** `veneer finalize` */
import { Command } from 'commander';
import { noKeys } from '../backup/key-ring.ts';
import { complain, openFillClient } from '../mount/fill-client.ts';

export function finalizeCommand(): Command {
  return new Command('finalize')
    .description('put the complete real disk file in the place of its plugin file')
    .argument('<plugin>', 'the plugin file, under the mount or in the folder behind it')
    .action(async (plugin: string) => {
      const client = await openFillClient(plugin, () => Promise.resolve(noKeys), complain);
      try {
        const { record } = (await client.ask('finalize')) as { record: string };
        console.log(`${plugin}: is an ordinary disk file now; its plugin file is kept as ${record}`);
      } finally {
        await client.close();
      }
    });
}
