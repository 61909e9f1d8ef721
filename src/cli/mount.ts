/** `veneer mount`: in the background once it serves, or in the foreground. */
import * as fs from '../base/fs.ts';
import { Command, Option } from 'commander';
import { singleFileFormats, type FormatName } from '../native/formats.ts';
import { writeModes, type WriteMode } from '../plugin/plugin-file.ts';
import { defaultIdleMs, defaultWorkers, maxWorkers, serveMount, type MountOptions } from '../mount/serve.ts';
import { anyTransport, transportNames } from '../mount/transports.ts';
import { defaultFillJobs } from '../fill/turns.ts';
import { defaultCacheBytes } from '../mount/memory-budget.ts';
import { defaultSourceTimeoutMs } from '../base/source-watch.ts';
import { bytesOption, countOption, descriptorOption, foldersOption, maxSeconds, timeOption } from './arguments.ts';
import { firstWord, receiveCredentials, serveInBackground, type Serving } from './background.ts';
import { credentialsOf, withKeyOptions, type KeyFlags } from './keys.ts';
import { say } from './output.ts';

const maxFillJobs = 16;
const minSourceTimeoutSeconds = 0.5;

interface MountFlags extends KeyFlags {
  readonly foreground?: boolean;
  readonly allowPath: readonly string[];
  readonly trustPluginFiles?: boolean;
  readonly present?: FormatName;
  readonly write?: WriteMode;
  readonly cache?: number;
  readonly idle: number;
  readonly transport: string;
  readonly workers?: number;
  readonly fill?: boolean;
  readonly fillRate?: number;
  readonly fillJobs?: number;
  readonly sourceTimeout?: number;
  readonly readyFd?: number;
  readonly keysFd?: number;
}

export function mountCommand(): Command {
  return withKeyOptions(new Command('mount'))
    .description('mount a folder: its plugin files read as disk files')
    .argument('<folder>', 'images and plugin files')
    .argument('<mountpoint>', 'an empty folder elsewhere')
    .option('--foreground', 'stay until it is unmounted')
    .addOption(
      foldersOption('--allow-path <folder>', 'plugin files may point to images in this folder too (may be repeated)'),
    )
    .option(
      '--trust-plugin-files',
      'as root: plugin files may point to images that those who may write them may not read',
    )
    .addOption(
      new Option('--present <format>', 'show every image as a disk file, with no plugin file').choices(
        singleFileFormats,
      ),
    )
    .addOption(
      new Option(
        '--write <mode>',
        'writes to disk files: intercept (kept beside the plugin file), discard (until unmount) or none (default: as each plugin file says, else intercept)',
      ).choices(writeModes),
    )
    .addOption(
      bytesOption('--cache <size>', 'memory for what is kept of images, of all disks together (default: 192M)'),
    )
    .addOption(
      timeOption('--idle <seconds>', 'close an image that nobody read for so long', {
        least: 0,
        most: maxSeconds,
      }).default(defaultIdleMs, String(defaultIdleMs / 1000)),
    )
    .addOption(
      new Option('--transport <name>', 'how to speak with the kernel')
        .choices([anyTransport, ...transportNames])
        .default(anyTransport),
    )
    .option('--fill', 'copy every disk of the folder into a real disk file meanwhile (see: veneer fill)')
    .addOption(bytesOption('--fill-rate <size>', 'what all fills together copy in a second (default: no limit)'))
    .addOption(
      countOption(
        '--fill-jobs <count>',
        `fills that work at once; others wait for their turn (default: ${defaultFillJobs})`,
        { least: 1, most: maxFillJobs },
      ),
    )
    .addOption(
      timeOption(
        '--source-timeout <seconds>',
        `an image that does not answer for so long fails the reads that wait for it (default: ${defaultSourceTimeoutMs / 1000})`,
        { least: minSourceTimeoutSeconds, most: maxSeconds },
      ),
    )
    .addOption(
      countOption('--workers <count>', `threads that answer (default: one for each core, ${defaultWorkers} here)`, {
        least: 1,
        most: maxWorkers,
      }),
    )
    .addOption(descriptorOption('--ready-fd <fd>').hideHelp())
    .addOption(descriptorOption('--keys-fd <fd>').hideHelp())
    .action(async (folder: string, mountpoint: string, flags: MountFlags) => {
      if (flags.foreground === true) await serve(folder, mountpoint, flags);
      else await startInBackground(folder, mountpoint, flags);
    });
}

async function serve(folder: string, mountpoint: string, flags: MountFlags): Promise<void> {
  const tell = (said: Serving | { readonly error: unknown }): void => {
    if (flags.readyFd === undefined) return;
    fs.writeSync(flags.readyFd, firstWord(said));
    fs.closeSync(flags.readyFd);
  };
  let served;
  try {
    served = await serveMount(folder, mountpoint, await optionsOf(flags));
  } catch (error) {
    tell({ error });
    throw error;
  }
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => void served.stop());
  tell({ pid: process.pid, hint: served.hint });
  if (flags.readyFd === undefined) {
    say(`${folder} is mounted at ${mountpoint}`);
    if (served.hint !== undefined) say(served.hint);
  }
  await served.ended;
  // libfuse's threads would keep the process.
  process.exit(0);
}

async function startInBackground(folder: string, mountpoint: string, flags: MountFlags): Promise<void> {
  const { pid, hint } = await serveInBackground(mountpoint, await credentialsOf(flags));
  say(`${folder} is mounted at ${mountpoint} (process ${pid}); unmount with: veneer unmount ${mountpoint}`);
  if (hint !== undefined) say(hint);
}

async function optionsOf(flags: MountFlags): Promise<MountOptions> {
  const credentials = flags.keysFd === undefined ? await credentialsOf(flags) : receiveCredentials(flags.keysFd);
  return {
    keys: { credentials, chains: [] },
    allowPaths: flags.allowPath,
    trustPluginFiles: flags.trustPluginFiles === true,
    present: flags.present,
    write: flags.write,
    cacheBytes: flags.cache ?? defaultCacheBytes,
    idleMs: flags.idle,
    transport: flags.transport,
    workers: flags.workers ?? defaultWorkers,
    fill: flags.fill === true,
    fillBytesPerSecond: flags.fillRate ?? 0,
    fillJobs: flags.fillJobs ?? defaultFillJobs,
    sourceTimeoutMs: flags.sourceTimeout ?? defaultSourceTimeoutMs,
  };
}
