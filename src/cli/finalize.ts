/** `veneer finalize` */
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { openFillClient, type FillClient } from '../mounts/fill-client.ts';
import type { FillStatus, Finalized } from '../fill/fill-status.ts';
import { credentialsOf, withKeyOptions, type KeyFlags } from './keys.ts';
import { reportProgress, type ProgressReporter } from './progress.ts';
import { complain, say } from './output.ts';

interface FinalizeFlags extends KeyFlags {
  readonly decrypt?: boolean;
}

const watchEveryMs = 250;

export function finalizeCommand(): Command {
  return withKeyOptions(new Command('finalize'))
    .description('put the complete real disk file in the place of its plugin file')
    .argument('<plugin>', 'the plugin file, under the mount or in the folder behind it')
    .option('--decrypt', 'make a plain disk file of one that is sealed; it needs room for both for a while')
    .action(async (plugin: string, flags: FinalizeFlags) => {
      const keys = async () => ({ credentials: await credentialsOf(flags), chains: [] });
      const client = await openFillClient(plugin, keys, complain);
      try {
        const decrypts = flags.decrypt === true;
        const work = client.ask('fill.finalize', { file: client.file, decrypts });
        const { record } = decrypts ? await watched(client, work) : await work;
        say(`${plugin}: is an ordinary disk file now; its plugin file is kept as ${record}`);
      } finally {
        await client.close();
      }
    });
}

/** Shows how far each file of the disk is decrypted, one after the other, until the work ends. */
async function watched(client: FillClient, work: Promise<Finalized>): Promise<Finalized> {
  const bars = new Map<string, ProgressReporter>();
  const finished = new Set<string>();
  const show = (name: string, doneBytes: number, ofBytes: number): void => {
    const bar = bars.get(name) ?? reportProgress(`decrypting ${name}`);
    bars.set(name, bar);
    bar.update(doneBytes, ofBytes);
  };
  const finish = (name: string, bytes: number): void => {
    if (finished.has(name)) return;
    show(name, bytes, bytes);
    bars.get(name)?.stop();
    finished.add(name);
  };
  const ended = work.then(
    () => true,
    () => true,
  );
  try {
    while (!(await Promise.race([ended, sleep(watchEveryMs, false, { ref: false })]))) {
      for (const { name, activity, decrypted } of await statusOf(client)) {
        if (decrypted === undefined || decrypted.ofBytes === 0) continue;
        if (activity === 'decrypt') show(name, decrypted.doneBytes, decrypted.ofBytes);
        else if (decrypted.doneBytes === decrypted.ofBytes) finish(name, decrypted.ofBytes);
      }
    }
    const done = await work;
    for (const { name, bytes } of done.decrypted) finish(name, bytes);
    return done;
  } finally {
    for (const [name, bar] of bars) if (!finished.has(name)) bar.stop();
  }
}

/** At its end there is nothing to ask about any more, and the work itself says what went wrong. */
async function statusOf(client: FillClient): Promise<FillStatus[]> {
  try {
    return await client.ask('fill.status', { file: client.file });
  } catch {
    return [];
  }
}
