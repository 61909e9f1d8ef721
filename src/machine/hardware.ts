/** The machines that QEMU is started as: one for each hypervisor that a guest may be meant for, as like it as QEMU can be. Pure. */
import { UnsupportedError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import type { Firmware } from '../bootable/geometry.ts';
import type { Target } from '../guest/plan.ts';
import { formatOf, type FormatName } from '../native/formats.ts';

/** How the guest's disk is attached, and QEMU's devices for that. */
const controllerDevices = {
  ide: ['ide-hd,drive=disk0,bootindex=0'],
  ahci: ['ich9-ahci,id=bus0', 'ide-hd,drive=disk0,bus=bus0.0,bootindex=0'],
  'virtio-blk': ['virtio-blk-pci,drive=disk0,bootindex=0'],
  'virtio-scsi': ['virtio-scsi-pci,id=bus0', 'scsi-hd,drive=disk0,bus=bus0.0,bootindex=0'],
  nvme: ['nvme,drive=disk0,serial=veneer,bootindex=0'],
  // A SAS disk has an address: Linux sees none without. This one is of those that anybody may give (NAA 3).
  'lsi-sas': ['mptsas1068,id=bus0', 'scsi-hd,drive=disk0,bus=bus0.0,bootindex=0,wwn=0x3000000000000001'],
  pvscsi: ['pvscsi,id=bus0', 'scsi-hd,drive=disk0,bus=bus0.0,bootindex=0'],
} as const;
export type Controller = keyof typeof controllerDevices;
export const controllers = Object.keys(controllerDevices) as Controller[];

interface Hardware {
  readonly controller: Controller;
  /** The only firmware that such a machine has; undefined where it may have either. */
  readonly firmware?: Firmware;
  /** What QEMU cannot do as that hypervisor does. */
  readonly unlike?: string;
}

const hardware: Readonly<Record<Target, Hardware>> = {
  qemu: { controller: 'ahci' },
  'qemu-virtio': { controller: 'virtio-blk' },
  'hyperv-gen1': { controller: 'ide', firmware: 'bios' },
  'hyperv-gen2': { controller: 'ahci', firmware: 'uefi', unlike: 'QEMU has no disk on a VMBus: it is on AHCI here' },
  vmware: { controller: 'lsi-sas' },
  virtualbox: { controller: 'ahci' },
};

export interface MachineWishes {
  readonly target: Target;
  /** Undefined: what the disk boots with. */
  readonly firmware: Firmware | undefined;
  readonly diskFirmware: Firmware;
  readonly controller: Controller | undefined;
}

export interface MachineSize {
  readonly memoryBytes: number;
  readonly processors: number;
  readonly accelerator: 'kvm' | 'tcg';
}

export interface Machine {
  readonly firmware: Firmware;
  readonly controller: Controller;
  readonly unlike: string | undefined;
}

/** @throws UnsupportedError when such a machine does not have that firmware */
export function chooseMachine(request: MachineWishes): Machine {
  const { controller, firmware: only, unlike } = hardware[request.target];
  const firmware = request.firmware ?? request.diskFirmware;
  if (only !== undefined && firmware !== only) {
    const disk = request.firmware === undefined ? `, and the disk boots with ${firmware.toUpperCase()}` : '';
    throw new UnsupportedError(
      `--target ${request.target} has ${only.toUpperCase()} only${disk}; choose another target`,
    );
  }
  return { firmware, controller: request.controller ?? controller, unlike };
}

/** libfuse 2 leaks its idle threads above about ten; a mount made by it is slow for ever after a burst. */
const ioThreadsMax = 8;

export function machineArguments(request: MachineSize, machine: Machine): string[] {
  const { accelerator, memoryBytes, processors } = request;
  const processor = accelerator === 'kvm' ? ['kvm', '-cpu', 'host'] : ['tcg,thread=multi', '-cpu', 'max'];
  // An IDE disk belongs to the older chipset.
  const type = machine.firmware === 'uefi' && machine.controller !== 'ide' ? 'q35' : 'pc';
  return [
    ...['-machine', type, '-accel', ...processor],
    ...['-m', String(Math.ceil(memoryBytes / MiB)), '-smp', String(processors), '-nodefaults'],
    ...['-object', `main-loop,id=main-loop,thread-pool-max=${ioThreadsMax}`],
    // A machine that was restored to be looked at must not meet the one that it was taken from.
    ...['-nic', 'none'],
  ];
}

export interface DriveRequest {
  readonly file: string;
  readonly format: FormatName;
  readonly controller: Controller;
  /** The guest may write, and it is gone when QEMU ends. */
  readonly temporary: boolean;
}

export function driveArguments({ file, format, controller, temporary }: DriveRequest): string[] {
  const drive = [`file=${quoted(file)}`, `format=${formatOf(format).qemuName}`, 'if=none', 'id=disk0', 'aio=threads'];
  if (temporary) drive.push('snapshot=on');
  return ['-drive', drive.join(','), ...deviceArguments(controller)];
}

/** The controller, and the disk on it, whose drive is `disk0`. */
export function deviceArguments(controller: Controller): string[] {
  return controllerDevices[controller].flatMap((device) => ['-device', device]);
}

/** In QEMU's option lists a comma is doubled. */
export function quoted(text: string): string {
  return text.replaceAll(',', ',,');
}
