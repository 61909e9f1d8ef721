/** `veneer boot`: the disk of a plugin file in QEMU. */
import { Command, Option } from 'commander';
import { GiB, MiB } from '../base/units.ts';
import type { Firmware } from '../bootable/geometry.ts';
import { targets, type Target } from '../guest/plan.ts';
import { bootMachine } from '../machine/boot.ts';
import { controllers, type Controller } from '../machine/hardware.ts';
import { writeModes, type WriteMode } from '../plugin/plugin-file.ts';
import { bytesOption, countOption, foldersOption, timeOption } from './arguments.ts';
import { credentialsOf, withKeyOptions, type KeyFlags } from './keys.ts';
import { say, warn } from './output.ts';

interface BootFlags extends KeyFlags {
  readonly target?: Target;
  readonly bios?: boolean;
  readonly uefi?: boolean;
  readonly controller?: Controller;
  readonly memory: number;
  readonly processors: number;
  readonly serial?: boolean;
  readonly write?: WriteMode;
  readonly allowPath: readonly string[];
  readonly stopWithin: number;
}

export function bootCommand(): Command {
  const command = new Command('boot')
    .description('boot the disk of a plugin file in QEMU; it is mounted for that, unless it is already')
    .argument('<plugin>', 'the plugin file, in its folder or under a mount')
    .argument('[qemu-arguments...]', 'further arguments for QEMU, after --')
    .addOption(
      new Option(
        '--target <name>',
        'a machine like those of this hypervisor (default: what the guest was reconfigured for, else qemu)',
      ).choices(targets),
    )
    .addOption(new Option('--bios', 'default: what the disk boots with').conflicts('uefi'))
    .option('--uefi', 'default: what the disk boots with')
    .addOption(new Option('--controller <name>', "of the disk (default: the target's)").choices(controllers))
    .addOption(bytesOption('--memory <size>', 'of the machine', { least: MiB }).default(2 * GiB, '2G'))
    .addOption(countOption('--processors <count>', 'of the machine', { least: 1, most: 64 }).default(2))
    .option('--serial', "no screen: the guest's serial port is this terminal")
    .addOption(new Option('--write <mode>', 'instead of what the plugin file says').choices(writeModes))
    .addOption(foldersOption('--allow-path <folder>', 'as for mount (may be repeated)'))
    .addOption(
      timeOption('--stop-within <seconds>', 'how long the guest may take to power down', {
        least: 0,
        most: 86_400,
      }).default(60_000, '60'),
    );
  return withKeyOptions(command).action(async (plugin: string, qemuArguments: readonly string[], flags: BootFlags) => {
    const end = await bootMachine(plugin, {
      target: flags.target,
      firmware: firmwareOf(flags),
      controller: flags.controller,
      memoryBytes: flags.memory,
      processors: flags.processors,
      serial: flags.serial === true,
      write: flags.write,
      allowPaths: flags.allowPath,
      keys: { credentials: await credentialsOf(flags), chains: [] },
      stopWithinMs: flags.stopWithin,
      qemuArguments,
      tell: (line) => say(line),
    });
    if (end === 'stopped') warn(`veneer: ${plugin}: the guest did not power down by itself; it was stopped`);
    // libfuse's threads would keep the process.
    process.exit(end === 'powered off' ? 0 : 1);
  });
}

function firmwareOf(flags: BootFlags): Firmware | undefined {
  if (flags.bios === true) return 'bios';
  return flags.uefi === true ? 'uefi' : undefined;
}
