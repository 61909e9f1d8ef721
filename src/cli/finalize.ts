/** `veneer finalize` */
import { Command } from 'commander';
import { complain, openFillClient } from '../mount/fill-client.ts';
import { credentialsOf, withKeyOptions, type KeyFlags } from './keys.ts';

interface FinalizeFlags extends KeyFlags {
  readonly decrypt?: boolean;
}

export function finalizeCommand(): Command {
  return withKeyOptions(new Command('finalize'))
    .description('put the complete real disk file in the place of its plugin file')
    .argument('<plugin>', 'the plugin file, under the mount or in the folder behind it')
    .option('--decrypt', 'make a plain disk file of one that is sealed; it needs room for both for a while')
    .action(async (plugin: string, flags: FinalizeFlags) => {
      const keys = async () => ({ credentials: await credentialsOf(flags), chains: [] });
      const client = await openFillClient(plugin, keys, complain);
      try {
        const { record } = (await client.ask('finalize', { decrypts: flags.decrypt === true })) as { record: string };
        console.log(`${plugin}: is an ordinary disk file now; its plugin file is kept as ${record}`);
      } finally {
        await client.close();
      }
    });
}
