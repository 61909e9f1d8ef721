import { expect, it, type TestContext } from 'vitest';
import { alignUp } from '../../../src/base/ranges.ts';
import { targets, type GuestPlan } from '../../../src/guest/plan.ts';
import {
  baseBlock,
  binsStartBytes,
  checksumOf,
  fileTypes,
  logEntry,
} from '../../../src/guest/windows/registry/layout.ts';
import { marvin32 } from '../../../src/guest/windows/registry/marvin.ts';
import { TempFolder } from '../../temp-folder.ts';
import { exportDifference, filledHive, hivexValue, judgeHive, realHive, skipWithout } from './hives.ts';
import { Machine, partitionStartBytes, smallSystem, storeFile, systemFile } from './machine.ts';

const programs = ['hivexregedit', 'hivexget', 'reged', 'regfinfo'];

/** The changes of a plan in one hive, and those of them that add a value. */
function changesIn(plan: GuestPlan, name: string): { all: number; fresh: number } {
  const own = plan.changes.filter(({ where }) => where.startsWith(`${name}: `));
  return { all: own.length, fresh: own.filter(({ old }) => old === 'absent').length };
}

/** Whether the files hold what the plan says, to foreign readers, and nothing else is changed. */
function expectApplied(machine: Machine, plan: GuestPlan, before: Readonly<Record<string, Uint8Array>>): void {
  machine.apply(plan);
  expect(machine.faults()).toBe('');
  for (const [file, name] of [
    [systemFile, 'SYSTEM'],
    [storeFile, '/Boot/BCD'],
  ] as const) {
    const old = before[file];
    if (old === undefined) continue;
    const now = machine.file(file);
    expect(now.length).toBe(old.length);
    judgeHive(now);
    const { all, fresh } = changesIn(plan, name);
    const difference = exportDifference(old, now);
    expect(difference.added).toHaveLength(all);
    expect(difference.gone).toHaveLength(all - fresh);
    expectNumbers(plan, now, name);
  }
  const again = machine.plan('hyperv-gen1');
  expect(again.changes).toEqual([]);
  expect(again.patches).toEqual([]);
}

/** Numbers of the plan, one by one, as hivexget reads them. */
function expectNumbers(plan: GuestPlan, hive: Uint8Array, name: string): void {
  using folder = new TempFolder();
  const file = folder.write('hive', hive);
  for (const change of plan.changes) {
    if (!change.where.startsWith(`${name}: `) || !/^\d+$/.test(change.new)) continue;
    const path = change.where.slice(name.length + 2);
    const cut = path.lastIndexOf('\\');
    expect(Number(hivexValue(file, `\\${path.slice(0, cut)}`, path.slice(cut + 1)))).toBe(Number(change.new));
  }
}

function machineOf(context: TestContext, folder: TempFolder, files: Readonly<Record<string, Uint8Array>>): Machine {
  skipWithout(context, programs);
  return new Machine(context, folder, files);
}

it('Windows 10 for Hyper-V: foreign readers find the planned values in the real hives, and nothing else changed', (context) => {
  using folder = new TempFolder();
  const files = {
    [systemFile]: realHive(context, 'SYSTEM_WIN_10_1709'),
    [storeFile]: realHive(context, 'BCDlaptop'),
    'hiberfil.sys': Buffer.alloc(10_000, 'hibr'),
  };
  const machine = machineOf(context, folder, files);
  const plan = machine.plan('hyperv-gen1');
  const overridden = ['pciide', 'vmbus', 'storvsc', 'storflt'];
  const started = plan.changes.filter(({ where }) => where.includes('StartOverride'));
  expect(started.map(({ where, old, new: now }) => [where, old, now])).toEqual(
    overridden.map((service) => [`SYSTEM: ControlSet001\\Services\\${service}\\StartOverride\\0`, '3', '0']),
  );
  expect(plan.warnings.some((warning) => warning.includes('no log applies'))).toBe(true);
  expect(plan.guest).toMatchObject({ os: 'windows', name: 'Windows 8.1 or later', firmware: ['bios'] });
  expectApplied(machine, plan, files);
  expect(
    machine.file('hiberfil.sys').equals(Buffer.concat([Buffer.alloc(4096), Buffer.alloc(10_000 - 4096, 'hibr')])),
  ).toBe(true);
});

it('Windows 7 for Hyper-V: foreign readers find the planned values in the real hives, and nothing else changed', (context) => {
  using folder = new TempFolder();
  const files = { [systemFile]: realHive(context, 'SYSTEM'), [storeFile]: realHive(context, 'BCDvm') };
  const machine = machineOf(context, folder, files);
  const plan = machine.plan('hyperv-gen1');
  const starts = plan.changes
    .filter(({ where }) => where.endsWith('\\Start'))
    .map(({ where }) => where.split('\\').at(-2));
  expect(starts).toEqual(['pciide', 'storvsc']);
  expect(plan.guest.name).toBe('Windows 7');
  expectApplied(machine, plan, files);
});

it('a small hive: start types, every override, filters of another hypervisor and the drive letter', (context) => {
  using folder = new TempFolder();
  skipWithout(context, programs);
  const files = { [systemFile]: filledHive(smallSystem) };
  const machine = machineOf(context, folder, files);
  const plan = machine.plan('virtualbox');
  expect(plan.changes.map(({ where, old, new: now }) => `${where}: ${old} -> ${now}`)).toEqual([
    'SYSTEM: ControlSet001\\Services\\storahci\\Start: 3 -> 0',
    'SYSTEM: ControlSet001\\Services\\storahci\\StartOverride\\0: 3 -> 0',
    'SYSTEM: ControlSet001\\Services\\storahci\\StartOverride\\1: 3 -> 0',
    'SYSTEM: ControlSet001\\Control\\CrashControl\\AutoReboot: 1 -> 0',
    'SYSTEM: ControlSet001\\Services\\xenfilt\\Start: 0 -> 4',
    'SYSTEM: ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}\\UpperFilters: partmgr, xenfilt -> partmgr',
    `SYSTEM: MountedDevices\\\\DosDevices\\C:: byte 1048576 of disk 0x04030201 -> byte ${partitionStartBytes} of disk 0xdf4546ae`,
    'partition 1: hidden sectors in its first sector: 0 -> 2048',
  ]);
  expectApplied(machine, plan, files);
});

/** A log as Windows 8.1 and later write it, with one entry: these bins in one page. */
function logOf(hive: Buffer, bins: Uint8Array): Buffer {
  const log = Buffer.alloc(512 + alignUp(logEntry.sizeBytes + 8 + bins.length, 512));
  hive.copy(log, 0, 0, 512);
  log.writeUInt32LE(hive.readUInt32LE(4), 8);
  log.writeUInt32LE(fileTypes.logOfEntries, 28);
  log.writeUInt32LE(checksumOf(log), baseBlock.offsetOf('checksum'));
  const entry = log.subarray(512);
  entry.writeUInt32LE(bins.length, logEntry.sizeBytes + 4);
  entry.set(bins, logEntry.sizeBytes + 8);
  const hashOfPages = marvin32(entry.subarray(logEntry.sizeBytes));
  const head = {
    sizeBytes: entry.length,
    flags: 0,
    sequence: hive.readUInt32LE(4),
    binsLength: bins.length,
    pageCount: 1,
  };
  logEntry.encode({ ...head, hashOfPages, hashOfHeader: 0n }, entry);
  entry.writeBigUInt64LE(marvin32(entry.subarray(0, 32)), 32);
  return log;
}

it('a hive that was not written to its end is replayed from its log, edited, and the log emptied', (context) => {
  using folder = new TempFolder();
  skipWithout(context, programs);
  const now = filledHive([...smallSystem, '[\\Known]', '"Only"="to the log"']);
  const before = Buffer.alloc(now.length);
  filledHive(smallSystem).copy(before);
  before.writeUInt32LE(before.readUInt32LE(8) + 1, 4);
  before.writeUInt32LE(checksumOf(before), baseBlock.offsetOf('checksum'));
  const log = logOf(before, now.subarray(binsStartBytes));
  const machine = machineOf(context, folder, { [systemFile]: before, [`${systemFile}.LOG1`]: log });
  const plan = machine.plan('virtualbox');
  expect(plan.warnings.filter((warning) => warning.includes('no log applies'))).toEqual([]);
  machine.apply(plan);
  const after = machine.file(systemFile);
  judgeHive(after);
  using copy = new TempFolder();
  expect(hivexValue(copy.write('hive', after), '\\Known', 'Only')).toBe('to the log');
  expect(hivexValue(copy.file('hive'), '\\ControlSet001\\Services\\storahci', 'Start')).toBe('0');
  expect(machine.file(`${systemFile}.LOG1`).equals(Buffer.concat([Buffer.alloc(512), log.subarray(512)]))).toBe(true);
  expect(machine.faults()).toBe('');
});

it('virtio: drivers that are there start at boot, and what is missing is said with a way to get it', (context) => {
  using folder = new TempFolder();
  skipWithout(context, programs);
  const service = ['[\\ControlSet001\\Services\\viostor]', '"Start"=dword:00000003'];
  const files = {
    [systemFile]: filledHive([...smallSystem.slice(0, -2), ...service, ...smallSystem.slice(-2)]),
    'Windows/System32/drivers/viostor.sys': Buffer.alloc(5000, 'driver'),
  };
  const plan = machineOf(context, folder, files).plan('qemu-virtio');
  expect(plan.changes.map(({ where }) => where)).toContain('SYSTEM: ControlSet001\\Services\\viostor\\Start');
  expect(plan.warnings.filter((warning) => warning.includes('virtio-win'))).toEqual([
    expect.stringMatching(/has no vioscsi and does not start from such a disk; give --virtio-win .* --target qemu/),
  ]);
});

it('every target plans for a real hive, within the disk, in a few kilobytes', (context) => {
  using folder = new TempFolder();
  const machine = machineOf(context, folder, { [systemFile]: realHive(context, 'SYSTEM_WIN_10_1709') });
  for (const target of targets) {
    const plan = machine.plan(target);
    expect(plan.patches.reduce((sum, patch) => sum + patch.after.length, 0)).toBeLessThan(4096);
    expect(plan.changes.length).toBeGreaterThan(3);
  }
});

it('the table to be built around a volume of Windows is the one that its drive letters and boot entries name', (context) => {
  using folder = new TempFolder();
  const files = { [systemFile]: realHive(context, 'SYSTEM'), [storeFile]: realHive(context, 'BCDvm') };
  const machine = machineOf(context, folder, files);
  const expected = machine.expectedTable();
  expect(expected).toEqual({ diskSignature: 0x5cbe_a03e, partitions: [{ startBytes: 1_048_576 }] });
});
