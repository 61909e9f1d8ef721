/** `veneer reconfigure` */
import path from 'node:path';
import { Command, Option } from 'commander';
import { z } from 'zod';
import { UsageError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { closing } from '../base/ownership.ts';
import { MiB } from '../base/units.ts';
import { BlockCache } from '../backup/read/block-cache.ts';
import { targets, type GuestPlan, type Target } from '../guest/plan.ts';
import { OpenPlugin } from '../plugin/open-plugin.ts';
import { PluginEdit } from '../plugin/plugin-edit.ts';
import { imagesOf } from '../plugin/plugin-file.ts';
import { choose, keepPlan, planReconfiguration, undo } from '../plugin/reconfigure.ts';
import { hasReplacement } from '../plugin/beside.ts';
import { foldersOption } from './arguments.ts';
import { keysFor, withKeyOptions, type KeyFlags } from './keys.ts';
import { say, sayJson, type Told } from './output.ts';

const cacheBytes = 64 * MiB;

interface ReconfigureFlags extends KeyFlags {
  readonly target?: Target;
  readonly console?: string;
  readonly virtioWin?: string;
  readonly allowPath: readonly string[];
  readonly choose?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
  readonly undo?: boolean;
}

/** `reconfigure`: what was found, and what is changed. */
export const reconfigureSchema = z.object({
  target: z.enum(targets),
  guest: z.object({
    os: z.enum(['linux', 'windows']),
    name: z.string(),
    version: z.string(),
    /** Of a Linux. */
    kernel: z.string().optional(),
    firmware: z.array(z.enum(['bios', 'uefi'])),
    diskNames: z.array(z.string()),
    storageDrivers: z.array(z.string()),
  }),
  changes: z.array(
    z.object({ what: z.string(), where: z.string(), old: z.string(), new: z.string(), why: z.string() }),
  ),
  warnings: z.array(z.string()),
  patches: z.array(z.object({ offsetBytes: z.number(), lengthBytes: z.number() })),
  initramfsBytes: z.number(),
  /** What a boot loader that is put around the volume boots. */
  boot: z
    .object({
      kernel: z.string(),
      initrds: z.array(z.string()),
      arguments: z.string(),
      partition: z.number().optional(),
      device: z.string().optional(),
    })
    .optional(),
});

export function reconfigureCommand(): Command {
  const command = new Command('reconfigure')
    .description(
      "make a guest ready for another hypervisor's hardware, in a patch set beside the plugin file; the image stays as it is",
    )
    .argument('<plugin>', 'the plugin file, in the folder behind the mount')
    .addOption(new Option('--target <hypervisor>', 'what the guest is to run on').choices(targets))
    .option('--console <port>', 'have a Linux use a serial port as well, e.g. ttyS0')
    .addOption(
      new Option(
        '--virtio-win <folder>',
        "with --target qemu-virtio, put virtio's drivers of this folder (the unpacked virtio-win ISO) into a Windows",
      ).conflicts(['undo', 'choose']),
    )
    .option('--dry-run', 'print the plan and change nothing')
    .option('--choose', 'use the patch set that was made for this target before')
    .option('--undo', 'forget the patch set of the target, or all of them')
    .addOption(foldersOption('--allow-path <folder>', 'images may lie there too (may be repeated)'))
    .option('--json', 'for programs');
  return withKeyOptions(command).action(reconfigure);
}

/** What is asked for. */
type Request =
  | { readonly does: 'undo'; readonly target: Target | undefined }
  | { readonly does: 'choose' | 'plan' | 'keep'; readonly target: Target };

/** The plugin file is read once; all that follows goes by that, and is written over that alone. */
async function reconfigure(pluginPath: string, flags: ReconfigureFlags): Promise<void> {
  const request = requestOf(flags);
  const isChange = request.does !== 'plan';
  using owned = closing(PluginEdit.open(pluginPath, isChange ? 'to change' : 'to look'));
  const file = owned.value;
  if (isChange) requireUnwritten(file);
  if (request.does === 'undo') {
    say(undoneText(pluginPath, undo(file, request.target)));
    return;
  }
  const { does, target } = request;
  if (does === 'choose') {
    choose(file, target);
    say(`${pluginPath}: reads with its patch set for ${target}`);
    return;
  }
  const plugin = await openFor(file, flags);
  const { console, virtioWin } = flags;
  const plan = planReconfiguration(plugin, target, { console, virtioWin });
  if (does === 'keep') keepPlan(file, plugin, target, plan);
  if (flags.json === true) sayJson(reconfigureSchema, forPrograms(plan, target));
  else say(...planText(pluginPath, plan, target, does === 'keep'));
}

/** @throws UsageError where the options do not go together */
function requestOf({ target, undo: undoes, choose: chooses, dryRun }: ReconfigureFlags): Request {
  const other = undoes === true ? '--undo' : chooses === true ? '--choose' : undefined;
  if (other !== undefined && dryRun === true) throw new UsageError(`${other} and --dry-run do not go together`);
  if (undoes === true) return { does: 'undo', target };
  if (target === undefined) throw new UsageError(`name what the guest is to run on: --target ${targets.join(', ')}`);
  if (chooses === true) return { does: 'choose', target };
  return { does: dryRun === true ? 'plan' : 'keep', target };
}

/** What was written to one of its native files was written by a guest as it is configured now. @throws UsageError */
function requireUnwritten({ plugin, path: pluginPath }: PluginEdit): void {
  if (!new OpenPlugin(plugin, pluginPath).nativePaths.some(hasReplacement)) return;
  throw new UsageError(
    `${pluginPath}: has been written to under a mount, by a guest as it is configured now; remove its .replacement files to start anew, or take them back with veneer image create first`,
  );
}

async function openFor({ plugin, path: pluginPath }: PluginEdit, flags: ReconfigureFlags): Promise<OpenPlugin> {
  const folder = path.dirname(absolutePath(pluginPath));
  const [image] = imagesOf(plugin);
  return new OpenPlugin(plugin, pluginPath, {
    allowed: { folders: [folder, ...flags.allowPath] },
    keys: await keysFor(image === undefined ? undefined : absolutePath(folder, image.path), flags),
    cache: BlockCache.ofOneThread(cacheBytes),
  });
}

function undoneText(pluginPath: string, gone: readonly Target[]): string {
  if (gone.length === 0) return `${pluginPath}: has no patch set`;
  return `${pluginPath}: is as its image again, without the patch set for ${gone.join(', ')}`;
}

function forPrograms(plan: GuestPlan, target: Target): Told<z.input<typeof reconfigureSchema>> {
  const { guest, changes, warnings, patches, initramfs, boot } = plan;
  return {
    target,
    guest,
    changes,
    warnings,
    patches: patches.map(({ offsetBytes, after }) => ({ offsetBytes, lengthBytes: after.length })),
    initramfsBytes: initramfs?.length ?? 0,
    ...(boot === undefined ? {} : { boot }),
  };
}

function planText(
  plugin: string,
  { guest, changes, warnings, patches, initramfs }: GuestPlan,
  target: Target,
  kept: boolean,
): string[] {
  const patchedBytes = patches.reduce((sum, { after }) => sum + after.length, 0);
  const rows = [
    ['guest', [guest.name, ...(guest.kernel === undefined ? [] : [`kernel ${guest.kernel}`])].join(', ')],
    ['firmware', guest.firmware.join(', ') || 'none on its own disk'],
    ['disks', guest.diskNames.join(', ') || 'none are named'],
    ['drivers', guest.storageDrivers.join(', ') || 'not known'],
    ['target', target],
  ].map(([name, value]) => `${(name ?? '').padEnd(10)}${value ?? ''}`);
  const done = changes.flatMap((change) => [
    `- ${change.what}: ${change.where}`,
    `    ${change.old} -> ${change.new}`,
    `    ${change.why}`,
  ]);
  const added = initramfs === undefined ? '' : ` and an initramfs of ${initramfs.length} bytes`;
  const end = kept
    ? `${plugin}: reads with this from now on (${patchedBytes} bytes in ${patches.length} places${added}); undo with: veneer reconfigure ${plugin} --undo`
    : `${plugin}: nothing was changed (--dry-run)`;
  return [
    ...rows,
    ...(done.length === 0 ? ['nothing needs to be changed'] : done),
    ...warnings.map((line) => `! ${line}`),
    end,
  ];
}
