/** `veneer fill start|pause|resume|cancel|status|verify` */
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { IntegrityError, UnavailableError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { openFillClient, type FillClient } from '../mounts/fill-client.ts';
import { fileProofsSchema, fillStatusesSchema, type FillStatus, type Proof } from '../fill/fill-status.ts';
import { bytesOption } from './arguments.ts';
import { credentialsOf, withKeyOptions, type KeyFlags } from './keys.ts';
import { statusText } from './fill-text.ts';
import { reportProgress } from './progress.ts';
import { complain, say, sayJson } from './output.ts';

interface StartFlags extends KeyFlags {
  readonly polite: boolean;
  readonly verify: boolean;
  readonly rate?: number;
}

const watchEveryMs = 500;
const pluginArgument = 'the plugin file, under the mount or in the folder behind it';

export function fillCommand(): Command {
  return new Command('fill')
    .description('copy a disk from its image into a real disk file while it is used')
    .addCommand(starting('start', 'begin to copy, or begin again after a failure; not mounted: copies here and now'))
    .addCommand(starting('resume', 'go on with a paused copy'))
    .addCommand(simple('pause', 'stop copying, and keep what was copied'))
    .addCommand(simple('cancel', 'stop copying, and give back the room of what was copied; what the guest wrote stays'))
    .addCommand(statusCommand())
    .addCommand(verifyCommand());
}

function starting(action: 'start' | 'resume', description: string): Command {
  return withKeyOptions(new Command(action))
    .description(description)
    .argument('<plugin>', pluginArgument)
    .addOption(bytesOption('--rate <size>', 'what all fills of the mount together copy in a second; 0: no limit'))
    .option('--no-polite', 'do not yield to guests')
    .option('--no-verify', 'do not read all back and compare it before the image is let go')
    .action(async (plugin: string, flags: StartFlags) => {
      await withClient(plugin, flags, async (client) => {
        const statuses = await client.ask(`fill.${action}`, {
          file: client.file,
          isPolite: flags.polite,
          isVerified: flags.verify,
          ...(flags.rate === undefined ? {} : { bytesPerSecond: flags.rate }),
        });
        if (client.isMounted) print(statuses);
        else await watch(client, plugin);
      });
    });
}

function simple(action: 'pause' | 'cancel', description: string): Command {
  return withKeyOptions(new Command(action))
    .description(description)
    .argument('<plugin>', pluginArgument)
    .action(async (plugin: string, flags: KeyFlags) => {
      await withClient(plugin, flags, async (client) =>
        print(await client.ask(`fill.${action}`, { file: client.file })),
      );
    });
}

function statusCommand(): Command {
  return withKeyOptions(new Command('status'))
    .description('how far the copy is')
    .argument('<plugin>', pluginArgument)
    .option('--watch', 'show progress until it ends')
    .option('--json', 'for programs')
    .action(async (plugin: string, flags: KeyFlags & { watch?: boolean; json?: boolean }) => {
      await withClient(plugin, flags, async (client) => {
        if (flags.watch === true) {
          await watch(client, plugin);
          return;
        }
        const statuses = await client.ask('fill.status', { file: client.file });
        if (flags.json === true) sayJson(fillStatusesSchema, statuses);
        else if (statuses.length === 0) say(`${plugin}: nothing was written to it or copied yet`);
        else print(statuses);
      });
    });
}

function verifyCommand(): Command {
  return withKeyOptions(new Command('verify'))
    .description('prove that the real disk file holds the image and what the guest wrote, and nothing else')
    .argument('<plugin>', pluginArgument)
    .option('--json', 'for programs')
    .action(async (plugin: string, flags: KeyFlags & { json?: boolean }) => {
      await withClient(plugin, flags, async (client) => {
        const proofs = await client.ask('fill.verify', { file: client.file });
        if (flags.json === true) sayJson(fileProofsSchema, proofs);
        else for (const { name, proof } of proofs) say(...proofText(name, proof));
        for (const { name, proof } of proofs) requireProven(name, proof);
      });
    });
}

/** Only what was compared is said to be as in the image, and only where all is known are there two hashes to compare. */
function proofText(name: string, proof: Proof): string[] {
  const written = formatBytes(proof.writtenUnits * 65536);
  const missing = formatBytes(proof.missingUnits * 65536);
  const size = formatBytes(proof.sizeBytes);
  const isKnown = proof.expectedSha256 !== undefined;
  return [
    isKnown
      ? `${name}: ${size}, ${written} written by the guest, ${missing} only in the image`
      : `${name}: ${size}, ${formatBytes(proof.equalBytes)} compared and as in the image`,
    ...(proof.grownBytes === 0
      ? []
      : [`  ${formatBytes(proof.grownBytes)} lie behind the end of the image: the guest's, and not compared`]),
    `  replacement               ${proof.replacementSha256}`,
    ...(isKnown ? [`  image + the guest's writes ${proof.expectedSha256}`] : [`  ${whyUnknown(proof)}`]),
  ];
}

function whyUnknown({ isDirect, unknownBytes }: Proof): string {
  const why = isDirect
    ? 'the guest has written straight to the file since the cut-over'
    : 'power was lost, and the guest may have written what no flush had covered';
  return `${why}: whether the ${formatBytes(unknownBytes)} that differ from the image are the guest's cannot be told`;
}

function requireProven(name: string, { replacementSha256, expectedSha256, differences }: Proof): void {
  if (expectedSha256 === undefined || replacementSha256 === expectedSha256) return;
  throw new IntegrityError(
    `${name}: differs from the image at bytes ${differences.join(', ')}, where the guest wrote nothing; copy it again with veneer fill cancel and veneer fill start`,
    expectedSha256,
    replacementSha256,
  );
}

async function withClient(
  plugin: string,
  flags: KeyFlags,
  action: (client: FillClient) => Promise<void>,
): Promise<void> {
  const keys = async () => ({ credentials: await credentialsOf(flags), chains: [] });
  const client = await openFillClient(plugin, keys, complain);
  try {
    await action(client);
  } finally {
    await client.close();
  }
}

function print(statuses: readonly FillStatus[]): void {
  say(...statuses.flatMap(statusText));
}

/** Until no file of the disk is being filled. @throws UnavailableError when that is not because all is done */
async function watch(client: FillClient, plugin: string): Promise<void> {
  let statuses: FillStatus[] = [];
  for (const verifies of [false, true]) {
    const progress = reportProgress(verifies ? 'reading back' : 'copying');
    try {
      for (;;) {
        statuses = await client.ask('fill.status', { file: client.file });
        const isHere = statuses.some(
          ({ state, activity }) => state === 'filling' && activity !== 'idle' && (verifies || activity !== 'verify'),
        );
        if (!isHere) break;
        const total = sum(statuses, ({ dataBytes }) => dataBytes);
        const done = sum(statuses, (one) => (verifies ? one.verifiedBytes : one.hotBytes + one.coldBytes));
        if (total > 0) progress.update(Math.min(done, total), total);
        await sleep(watchEveryMs);
      }
    } finally {
      progress.stop();
    }
  }
  print(statuses);
  const ended = statuses.find(({ state }) => state !== 'complete' && state !== 'final');
  if (ended !== undefined)
    throw new UnavailableError(
      `${plugin}: ${ended.name} is ${ended.state}${ended.note === '' ? '' : `: ${ended.note}`}`,
    );
}

function sum(statuses: readonly FillStatus[], of: (status: FillStatus) => number): number {
  return statuses.reduce((total, status) => total + of(status), 0);
}
