/**
 * The drivers that Windows must start to read its boot disk on the target's hardware, and what else of its SYSTEM hive keeps it from
 * starting there. Edits of numbers in place: all drivers named here are in Windows already.
 */
import type { Target } from '../plan.ts';
import type { RecordedEdits } from './recorded-edits.ts';
import type { Key } from './registry/hive.ts';

const ide = ['atapi', 'intelide', 'pciide'] as const;
/** Of Windows 7; of Windows 8 and later. */
const ahci = ['msahci', 'storahci'] as const;
/** Windows 8.1 and later, and an update of 7. */
const nvme = ['stornvme'] as const;
const hyperV = ['vmbus', 'storvsc', 'storflt'] as const;
/** LSI_SCSI until Windows 7. */
const lsi = ['LSI_SAS', 'LSI_SCSI'] as const;

/** Any of a row is enough to read the boot disk, where the virtual machine has that controller. */
const controllers: Readonly<Record<Target, readonly (readonly string[])[]>> = {
  qemu: [ide, ahci, nvme],
  'qemu-virtio': [ide, ahci, nvme],
  'hyperv-gen1': [ide, hyperV],
  'hyperv-gen2': [hyperV],
  vmware: [['LSI_SAS'], ['LSI_SCSI'], ahci, ide, nvme],
  virtualbox: [ahci, ide, lsi, nvme],
};

/** Drivers and services of other hypervisors that are known to stop a start where their hardware is missing. */
const foreign = /^(rhelscsi|prl_.*|xenvbd|xenfilt|scsifilt)$/i;

const start = { boot: 0, disabled: 4 } as const;

/** @returns names of the storage drivers that Windows starts at boot, as the hive says before any edit */
export function bootDrivers(edits: RecordedEdits, controlSet: string): string[] {
  const known = [...new Set([...Object.values(controllers).flat(2), 'viostor', 'vioscsi'])];
  return known.filter((name) => {
    const key = edits.key(`${controlSet}\\Services\\${name}`);
    return (
      key !== undefined && key.dword('Start') === start.boot && overridesOf(key).every(({ number }) => number === 0)
    );
  });
}

/** Has the drivers of the target's controllers started at boot. Returns those services that are there. */
export function startControllers(edits: RecordedEdits, controlSet: string, target: Target): string[] {
  const wanted = [...new Set(controllers[target].flat())];
  return wanted.filter((name) =>
    startAtBoot(edits, controlSet, name, `${target} shows the boot disk on a controller that ${name} drives`),
  );
}

/** Whether the service is there. */
export function startAtBoot(edits: RecordedEdits, controlSet: string, name: string, why: string): boolean {
  const path = `${controlSet}\\Services\\${name}`;
  const key = edits.key(path);
  if (key?.dword('Start') === undefined) return false;
  edits.setDword(path, 'Start', start.boot, `start ${name} at boot`, why);
  for (const { name: value, number } of overridesOf(key))
    if (number !== 0) edits.setDword(`${path}\\StartOverride`, value, 0, `start ${name} at boot`, why);
  return true;
}

/** From Windows 8 on: a start type for each hardware profile, which stands above `Start`. */
function overridesOf(service: Key): { name: string; number: number }[] {
  const found: { name: string; number: number }[] = [];
  for (const value of service.subkey('StartOverride')?.values() ?? []) {
    const number = value.lengthBytes === 4 ? value.dword() : undefined;
    if (number !== undefined) found.push({ name: value.name, number });
  }
  return found;
}

/** Windows shuts down for real, so that its next start reads this hive; a failed start stays on the screen. */
export function plainStarts(edits: RecordedEdits, controlSet: string): void {
  const power = `${controlSet}\\Control\\Session Manager\\Power`;
  if ((edits.key(power)?.dword('HiberbootEnabled') ?? 0) !== 0)
    edits.setDword(
      power,
      'HiberbootEnabled',
      0,
      'no fast startup',
      'a fast startup resumes drivers of the old hardware',
    );
  const crash = `${controlSet}\\Control\\CrashControl`;
  if ((edits.key(crash)?.dword('AutoReboot') ?? 0) !== 0)
    edits.setDword(
      crash,
      'AutoReboot',
      0,
      'no restart after a stop error',
      'what stops Windows stays readable on the screen',
    );
}

/** Services of other hypervisors do not start, and stand in no list of filters, where a missing one would stop its device. */
export function disableForeign(edits: RecordedEdits, controlSet: string): void {
  const why = 'it belongs to another hypervisor and stops the start where its hardware is missing';
  const services = `${controlSet}\\Services`;
  const disabled = new Set<string>();
  for (const service of edits.key(services)?.subkeys() ?? []) {
    const current = foreign.test(service.name) ? service.dword('Start') : undefined;
    if (current === undefined) continue;
    disabled.add(service.name.toLowerCase());
    if (current < start.disabled)
      edits.setDword(`${services}\\${service.name}`, 'Start', start.disabled, `do not start ${service.name}`, why);
  }
  if (disabled.size === 0) return;
  const classes = `${controlSet}\\Control\\Class`;
  for (const one of edits.key(classes)?.subkeys() ?? []) {
    for (const list of ['UpperFilters', 'LowerFilters']) {
      const lines = one.lines(list);
      const kept = lines?.filter((line) => !disabled.has(line.toLowerCase()));
      if (lines !== undefined && kept !== undefined && kept.length < lines.length)
        edits.setLines(`${classes}\\${one.name}`, list, kept, 'no filter of another hypervisor', why);
    }
  }
}
