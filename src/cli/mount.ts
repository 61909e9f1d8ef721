/** `veneer mount`: in the background once it serves, or in the foreground. */
import { spawn } from 'node:child_process';
import * as fs from '../base/fs.ts';
import type { Writable } from 'node:stream';
import { Command, Option } from 'commander';
import { describeError, UnavailableError, UsageError } from '../base/errors.ts';
import { parseSize } from '../base/units.ts';
import { commandOf } from '../base/byte-arguments.ts';
import { absolutePath, givenArguments } from '../base/given-names.ts';
import type { Credential } from '../backup/key-slots.ts';
import { singleFileFormats, type FormatName } from '../native/formats.ts';
import { writeModes, type WriteMode } from '../plugin/plugin-file.ts';
import { defaultIdleMs, defaultWorkers, maxWorkers, serveMount, type MountOptions } from '../mount/serve.ts';
import { anyTransport, transportNames } from '../mount/transports.ts';
import { defaultFillJobs } from '../fill/turns.ts';
import { defaultCacheBytes } from '../mount/memory-budget.ts';
import { defaultSourceTimeoutMs } from '../base/source-watch.ts';
import { credentialsOf, withKeyOptions, type KeyFlags } from './keys.ts';
import { say } from './output.ts';

const maxFillJobs = 16;
const minSourceTimeoutMs = 500;

interface MountFlags extends KeyFlags {
  readonly foreground?: boolean;
  readonly allowPath: readonly string[];
  readonly trustPluginFiles?: boolean;
  readonly present?: FormatName;
  readonly write?: WriteMode;
  readonly cache?: string;
  readonly idle: string;
  readonly transport: string;
  readonly workers?: string;
  readonly fill?: boolean;
  readonly fillRate?: string;
  readonly fillJobs?: string;
  readonly sourceTimeout?: string;
  readonly readyFd?: string;
  readonly keysFd?: string;
}

export function mountCommand(): Command {
  return withKeyOptions(new Command('mount'))
    .description('mount a folder: its plugin files read as disk files')
    .argument('<folder>', 'images and plugin files')
    .argument('<mountpoint>', 'an empty folder elsewhere')
    .option('--foreground', 'stay until it is unmounted')
    .option(
      '--allow-path <folder>',
      'plugin files may point to images in this folder too (may be repeated)',
      collect,
      [],
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
    .option('--cache <size>', 'memory for what is kept of images, of all disks together (default: 192M)')
    .option('--idle <seconds>', 'close an image that nobody read for so long', String(defaultIdleMs / 1000))
    .addOption(
      new Option('--transport <name>', 'how to speak with the kernel')
        .choices([anyTransport, ...transportNames])
        .default(anyTransport),
    )
    .option('--fill', 'copy every disk of the folder into a real disk file meanwhile (see: veneer fill)')
    .option('--fill-rate <size>', 'what all fills together copy in a second (default: no limit)')
    .option('--fill-jobs <count>', `fills that work at once; others wait for their turn (default: ${defaultFillJobs})`)
    .option(
      '--source-timeout <seconds>',
      `an image that does not answer for so long fails the reads that wait for it (default: ${defaultSourceTimeoutMs / 1000})`,
    )
    .option('--workers <count>', `threads that answer (default: one for each core, ${defaultWorkers} here)`)
    .addOption(new Option('--ready-fd <fd>').hideHelp())
    .addOption(new Option('--keys-fd <fd>').hideHelp())
    .action(async (folder: string, mountpoint: string, flags: MountFlags) => {
      if (flags.foreground === true) await serve(folder, mountpoint, flags);
      else await startInBackground(folder, mountpoint, await credentialsOf(flags));
    });
}

async function serve(folder: string, mountpoint: string, flags: MountFlags): Promise<void> {
  const tell = (message: unknown): void => {
    if (flags.readyFd === undefined) return;
    fs.writeSync(Number(flags.readyFd), `${JSON.stringify(message)}\n`);
    fs.closeSync(Number(flags.readyFd));
  };
  let served;
  try {
    served = await serveMount(folder, mountpoint, await optionsOf(flags));
  } catch (error) {
    tell({ error: describeError(error) });
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

/** Starts a process of its own that serves, and waits for its word. */
async function startInBackground(
  folder: string,
  mountpoint: string,
  credentials: readonly Credential[],
): Promise<void> {
  const handedOver = ['--foreground', '--ready-fd', '3', '--keys-fd', '4'];
  const { program, args } = commandOf(process.execPath, [process.argv[1] ?? '', ...givenArguments(), ...handedOver]);
  const child = spawn(program, args, {
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
  });
  sendCredentials(child.stdio[4] as Writable, credentials);
  const answer = await new Promise<string>((resolve, reject) => {
    let text = '';
    child.on('error', reject);
    child.stdio[3]?.on('data', (data: Buffer) => (text += data.toString()));
    child.stdio[3]?.on('end', () => resolve(text));
  });
  child.unref();
  if (answer === '')
    throw new UnavailableError(
      `${mountpoint}: the process that should serve it ended; run with --foreground to see why`,
    );
  const said = JSON.parse(answer) as { error?: string; pid?: number; hint?: string };
  if (said.error !== undefined) throw new UsageError(said.error);
  say(`${folder} is mounted at ${mountpoint} (process ${said.pid ?? '?'}); unmount with: veneer unmount ${mountpoint}`);
  if (said.hint !== undefined) say(said.hint);
}

/** Through a pipe: what is in arguments or the environment others can see. */
function sendCredentials(pipe: Writable, credentials: readonly Credential[]): void {
  // A process that ends at once has said why on the other pipe.
  pipe.on('error', () => undefined);
  const encoded = credentials.map(({ kind, secret }) => ({ kind, secret: Buffer.from(secret).toString('base64') }));
  pipe.end(JSON.stringify(encoded));
}

function receiveCredentials(fd: number): Credential[] {
  const sent = JSON.parse(fs.readFileSync(fd, 'utf8')) as { kind: Credential['kind']; secret: string }[];
  fs.closeSync(fd);
  return sent.map(({ kind, secret }) => ({ kind, secret: Buffer.from(secret, 'base64') }));
}

async function optionsOf(flags: MountFlags): Promise<MountOptions> {
  const credentials =
    flags.keysFd === undefined ? await credentialsOf(flags) : receiveCredentials(Number(flags.keysFd));
  return {
    keys: { credentials, chains: [] },
    allowPaths: flags.allowPath.map((allowed) => absolutePath(allowed)),
    trustPluginFiles: flags.trustPluginFiles === true,
    present: flags.present,
    write: flags.write,
    cacheBytes: flags.cache === undefined ? defaultCacheBytes : parseSize(flags.cache, '--cache'),
    idleMs: parseSize(flags.idle, '--idle') * 1000,
    transport: flags.transport,
    workers: countOf(flags.workers, '--workers', defaultWorkers, maxWorkers),
    fill: flags.fill === true,
    fillBytesPerSecond: flags.fillRate === undefined ? 0 : parseSize(flags.fillRate, '--fill-rate'),
    fillJobs: countOf(flags.fillJobs, '--fill-jobs', defaultFillJobs, maxFillJobs),
    sourceTimeoutMs:
      flags.sourceTimeout === undefined
        ? defaultSourceTimeoutMs
        : parseSeconds(flags.sourceTimeout, '--source-timeout'),
  };
}

function countOf(text: string | undefined, what: string, usual: number, max: number): number {
  if (text === undefined) return usual;
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > max)
    throw new UsageError(`${what}: "${text}" is not a number from 1 to ${max}`);
  return count;
}

/** @returns milliseconds */
function parseSeconds(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min)?$/.exec(text.trim());
  const scale = { ms: 1, s: 1000, m: 60_000, min: 60_000 }[match?.[2] ?? 's'];
  const ms = match === null || scale === undefined ? 0 : Number(match[1]) * scale;
  if (ms < minSourceTimeoutMs)
    throw new UsageError(`${what}: "${text}" is no time of half a second or more; write e.g. 30, 30s or 2m`);
  return ms;
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}
