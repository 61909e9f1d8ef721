/** `veneer reconfigure` */
import path from 'node:path';
import { Command, Option } from 'commander';
import { z } from 'zod';
import { UsageError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { targets, type GuestPlan, type Target } from '../guest/plan.ts';
import { readPluginFile } from '../plugin/plugin-file.ts';
import { choose, keepPlan, nativePathsOf, planReconfiguration, undo } from '../plugin/reconfigure.ts';
import { hasReplacement } from '../plugin/beside.ts';
import { foldersOption } from './arguments.ts';
import { keysFor, withKeyOptions, type KeyFlags } from './keys.ts';
import { say, sayJson, type Told } from './output.ts';

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

async function reconfigure(plugin: string, flags: ReconfigureFlags): Promise<void> {
  const changes = flags.dryRun !== true;
  if (changes && nativePathsOf(plugin).some(hasReplacement)) {
    throw new UsageError(
      `${plugin}: has been written to under a mount, by a guest as it is configured now; remove its .replacement files to start anew, or take them back with veneer image create first`,
    );
  }
  if (flags.undo === true) {
    if (!changes) throw new UsageError('--undo and --dry-run do not go together');
    const gone = undo(plugin, flags.target);
    say(
      gone.length === 0
        ? `${plugin}: has no patch set`
        : `${plugin}: is as its image again, without the patch set for ${gone.join(', ')}`,
    );
    return;
  }
  if (flags.target === undefined)
    throw new UsageError(`name what the guest is to run on: --target ${targets.join(', ')}`);
  if (flags.choose === true) {
    choose(plugin, flags.target);
    say(`${plugin}: reads with its patch set for ${flags.target}`);
    return;
  }
  const folder = path.dirname(absolutePath(plugin));
  const image = absolutePath(folder, readPluginFile(plugin).image.path);
  const options = {
    allowed: { folders: [folder, ...flags.allowPath] },
    keys: await keysFor(image, flags),
    console: flags.console,
    virtioWin: flags.virtioWin,
  };
  const plan = planReconfiguration(plugin, flags.target, options);
  if (changes) keepPlan(plugin, flags.target, plan, options);
  if (flags.json === true) sayJson(reconfigureSchema, forPrograms(plan, flags.target));
  else say(...planText(plugin, plan, flags.target, changes));
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
