/** virtio's drivers, put into a Windows from a folder: the file and the registry, as foreign programs read them. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it, type TestContext } from 'vitest';
import { CapacityError } from '../../../src/base/errors.ts';
import { HiveEditor } from '../../../src/guest/windows/registry/edit.ts';
import type { GuestPlan } from '../../../src/guest/plan.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { judgePrograms, judgeVolume, listedNames, readTree } from '../../filesystem/ntfs/judges.ts';
import { leaveFreeRecords } from '../../filesystem/ntfs/made-volume.ts';
import { driverFor, writeVirtioWin } from './drivers.ts';
import { exportDifference, filledHive, hivexValue, judgeHive, realHive, skipWithout } from './hives.ts';
import { hex, Machine, smallSystem, softwareLines, storeFile, systemFile, utf16 } from './machine.ts';

const programs = [...judgePrograms, 'hivexregedit', 'hivexget', 'reged', 'regfinfo'];
const driversFolder = 'Windows/System32/drivers';
const softwareFile = 'Windows/System32/config/SOFTWARE';

/** A SOFTWARE hive that says which Windows it is. */
function softwareOf(product: string, build: number): Buffer {
  return filledHive(
    softwareLines.map((line) =>
      line.startsWith('"ProductName"')
        ? `"ProductName"=hex(1):${utf16(product)}`
        : line.startsWith('"CurrentBuild"')
          ? `"CurrentBuild"=hex(1):${utf16(String(build))}`
          : line,
    ),
  );
}

/** A Windows with a folder of drivers, and file records to spare. */
function windowsWith(
  context: TestContext,
  folder: TempFolder,
  files: Readonly<Record<string, Uint8Array>>,
  driverCount = 300,
): Machine {
  const random = seededTest('drivers of a Windows');
  const own: Record<string, Uint8Array> = {};
  for (const name of ['storport', 'disk', 'volmgr', 'partmgr', 'ntfs'])
    own[`${driversFolder}/${name}.sys`] = driverFor('amd64', 20_000, random);
  for (let index = 0; index < driverCount; index++)
    own[`${driversFolder}/drv${index}.sys`] = random.bytes(random.below(3000));
  return new Machine(context, folder, { ...own, ...files }, (mountpoint) => leaveFreeRecords(mountpoint, 8));
}

const drivers = [
  { name: 'viostor', devices: ['VEN_1AF4&DEV_1001&REV_00', 'VEN_1AF4&DEV_1042&REV_01'], bus: '00000001' },
  { name: 'vioscsi', devices: ['VEN_1AF4&DEV_1004&REV_00', 'VEN_1AF4&DEV_1048&REV_01'], bus: '0000000a' },
] as const;

const text = (value: string): string => `hex(1):${utf16(value)}`;
const lines = (value: string): string => `hex(7):${utf16(value)},00,00`;

/** What an export has more when the service is declared. */
function serviceEntries({ name, bus }: (typeof drivers)[number], services: string): string[] {
  const key = `${services}\\${name}`;
  return [
    key,
    `${key} "Type"=dword:00000001`,
    `${key} "Start"=dword:00000000`,
    `${key} "ErrorControl"=dword:00000001`,
    `${key} "Group"=${text('SCSI miniport')}`,
    `${key} "ImagePath"=hex(2):${utf16(`system32\\drivers\\${name}.sys`)}`,
    `${key}\\Parameters`,
    `${key}\\Parameters "BusType"=dword:${bus}`,
    `${key}\\Parameters\\PnpInterface`,
    `${key}\\Parameters\\PnpInterface "5"=dword:00000001`,
  ];
}

function packageEntries({ name, devices }: (typeof drivers)[number]): string[] {
  const file = `veneer_${name}.inf`;
  const label = `${file}_tmp`;
  const files = `\\DriverDatabase\\DriverInfFiles\\${file}`;
  const driverPackage = `\\DriverDatabase\\DriverPackages\\${label}`;
  const configuration = `${name}_conf`;
  const version = `00,ff,09,00,00,00,00,00,7b,e9,36,4d,25,e3,ce,11,bf,c1,08,00,2b,e1,03,18,${hex(Buffer.alloc(24))}`;
  return [
    files,
    `${files} @=${lines(label)}`,
    `${files} "Active"=${text(label)}`,
    `${files} "Configurations"=${lines(configuration)}`,
    driverPackage,
    `${driverPackage} "Version"=hex(3):${version}`,
    `${driverPackage}\\Configurations`,
    `${driverPackage}\\Configurations\\${configuration}`,
    `${driverPackage}\\Configurations\\${configuration} "ConfigFlags"=dword:00000000`,
    `${driverPackage}\\Configurations\\${configuration} "Service"=${text(name)}`,
    `${driverPackage}\\Descriptors`,
    `${driverPackage}\\Descriptors\\PCI`,
    ...devices.flatMap((device) => [
      `${driverPackage}\\Descriptors\\PCI\\${device}`,
      `${driverPackage}\\Descriptors\\PCI\\${device} "Configuration"=${text(configuration)}`,
      `\\DriverDatabase\\DeviceIds\\PCI\\${device}`,
      `\\DriverDatabase\\DeviceIds\\PCI\\${device} "${file}"=hex(3):01,ff,00,00`,
    ]),
  ];
}

function deviceEntries({ name, devices }: (typeof drivers)[number]): string[] {
  return devices.flatMap((device) => {
    const key = `\\ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#${device}`;
    return [
      key,
      `${key} "Service"=${text(name)}`,
      `${key} "ClassGUID"=${text('{4D36E97B-E325-11CE-BFC1-08002BE10318}')}`,
    ];
  });
}

/** Applies the plan and has all judges look; `added` is what the SYSTEM hive must have more, beside the plan for `qemu`. */
function expectInstalled(
  machine: Machine,
  plan: GuestPlan,
  before: Buffer,
  files: ReadonlyMap<string, Buffer>,
  added: readonly string[],
): void {
  const tree = readTree(machine.volume);
  machine.apply(plan);
  judgeVolume(machine.volume);
  const after = readTree(machine.volume);
  const changed = [...after].filter(([name, digest]) => tree.get(name) !== digest).map(([name]) => name);
  expect(changed.filter((name) => !name.includes('/config/') && !name.startsWith('/Boot/')).sort()).toEqual(
    [...files.keys()].map((name) => `/${driversFolder}/${name}`).sort(),
  );
  expect([...tree.keys()].filter((name) => !after.has(name))).toEqual([]);
  for (const [name, contents] of files) {
    expect(machine.file(`${driversFolder}/${name}`).equals(contents)).toBe(true);
    expect(listedNames(machine.volume, `/${driversFolder}`)).toContain(name);
  }
  const hive = machine.file(systemFile);
  judgeHive(hive);
  const difference = exportDifference(before, hive);
  const isOfDriver = (entry: string): boolean => added.includes(entry);
  expect(added.filter((entry) => !difference.added.includes(entry))).toEqual([]);
  // The rest is what the plan says of numbers that were there before.
  const others = difference.added.filter((entry) => !isOfDriver(entry));
  expect(others.every((entry) => /"(Start|0|AutoReboot|HiberbootEnabled|\\\\DosDevices\\\\C:)"=/.test(entry))).toBe(
    true,
  );
  expect(difference.gone).toHaveLength(others.length);
  const again = machine.plan('qemu-virtio');
  expect(again.patches).toEqual([]);
  expect(again.warnings.filter((warning) => /vio(stor|scsi)/.test(warning))).toEqual([]);
}

it('Windows 10: both drivers are in the guest, with a package of DriverDatabase for each', (context) => {
  skipWithout(context, programs);
  using folder = new TempFolder();
  const before = realHive(context, 'SYSTEM_WIN_10_1709');
  const root = folder.file('iso');
  const written = writeVirtioWin(
    root,
    ['viostor/w10/amd64', 'vioscsi/w10/amd64', 'viostor/w11/amd64'],
    seededTest('virtio-win'),
  );
  const machine = windowsWith(context, folder, {
    [systemFile]: before,
    [softwareFile]: softwareOf('Windows 10 Pro', 16_299),
    [storeFile]: realHive(context, 'BCDlaptop'),
  });
  const plan = machine.plan('qemu-virtio', { virtioWin: root });
  expect(plan.changes.filter(({ what }) => what === 'add a driver').map(({ where, old }) => [where, old])).toEqual([
    [`/${driversFolder}/viostor.sys`, 'absent'],
    [`/${driversFolder}/vioscsi.sys`, 'absent'],
  ]);
  const files = new Map(
    drivers.map(({ name }) => [`${name}.sys`, written.get(`${name}/w10/amd64/${name}.sys`) ?? Buffer.alloc(0)]),
  );
  const services = '\\ControlSet001\\Services';
  expectInstalled(
    machine,
    plan,
    before,
    files,
    drivers.flatMap((driver) => [...serviceEntries(driver, services), ...packageEntries(driver)]),
  );
  using copy = new TempFolder();
  const hive = copy.write('hive', machine.file(systemFile));
  expect(hivexValue(hive, String.raw`\ControlSet001\Services\viostor`, 'ImagePath')).toBe(
    String.raw`system32\drivers\viostor.sys`,
  );
  expect(hivexValue(hive, String.raw`\DriverDatabase\DriverInfFiles\veneer_vioscsi.inf`, 'Active')).toBe(
    'veneer_vioscsi.inf_tmp',
  );
  // With the folder again, there is nothing left to do.
  expect(machine.plan('qemu-virtio', { virtioWin: root })).toMatchObject({ patches: [], changes: [] });
});

it('Windows 7: both drivers are in the guest, and CriticalDeviceDatabase names their devices', (context) => {
  skipWithout(context, programs);
  using folder = new TempFolder();
  const before = realHive(context, 'SYSTEM');
  const root = folder.file('iso');
  const written = writeVirtioWin(root, ['viostor/w7/x86', 'vioscsi/w7/x86'], seededTest('virtio-win of old'));
  const machine = windowsWith(context, folder, {
    [systemFile]: before,
    [softwareFile]: softwareOf('Windows 7 Professional', 7601),
    [storeFile]: realHive(context, 'BCDvm'),
  });
  const plan = machine.plan('qemu-virtio', { virtioWin: root });
  const files = new Map(
    drivers.map(({ name }) => [`${name}.sys`, written.get(`${name}/w7/x86/${name}.sys`) ?? Buffer.alloc(0)]),
  );
  const services = '\\ControlSet001\\services';
  expectInstalled(
    machine,
    plan,
    before,
    files,
    drivers.flatMap((driver) => [...serviceEntries(driver, services), ...deviceEntries(driver)]),
  );
});

const place = [
  '[\\ControlSet001\\Control\\Session Manager]',
  '[\\ControlSet001\\Control\\Session Manager\\Environment]',
  `"PROCESSOR_ARCHITECTURE"=${text('AMD64')}`,
];

it('one driver alone is added, and the other is said to be missing', (context) => {
  skipWithout(context, programs);
  using folder = new TempFolder();
  const before = filledHive([...smallSystem, ...place, '[\\DriverDatabase]'], 64 * 1024);
  const root = folder.file('iso');
  const own = path.join(root, 'viostor/w11/amd64');
  const written = writeVirtioWin(root, ['viostor/w11/amd64'], seededTest('one driver'));
  const machine = windowsWith(context, folder, { [systemFile]: before, [softwareFile]: filledHive(softwareLines) });
  for (const virtioWin of [root, own]) {
    const plan = machine.plan('qemu-virtio', { virtioWin });
    expect(plan.changes.filter(({ what }) => what === 'add a driver')).toHaveLength(1);
    expect(plan.warnings.filter((warning) => warning.includes('vioscsi'))).toEqual([
      expect.stringMatching(/has no vioscsi and does not start from such a disk; give --virtio-win/),
    ]);
  }
  machine.apply(machine.plan('qemu-virtio', { virtioWin: own }));
  judgeVolume(machine.volume);
  expect(
    machine
      .file(`${driversFolder}/viostor.sys`)
      .equals(written.get('viostor/w11/amd64/viostor.sys') ?? Buffer.alloc(0)),
  ).toBe(true);
});

/** The hive with values in its root that fill it. */
function withoutRoom(hive: Buffer): Buffer {
  const editor = new HiveEditor('SYSTEM', hive);
  try {
    for (let index = 0; ; index++) editor.setText(editor.hive.root(), `filler${index}`, 'fills the hive');
  } catch (error) {
    if (!(error instanceof CapacityError)) throw error;
  }
  return Buffer.from(editor.commit());
}

it('what does not fit is refused in one line: the folder, the processor, the registry, the room', (context) => {
  skipWithout(context, programs);
  using folder = new TempFolder();
  const root = folder.file('iso');
  writeVirtioWin(root, ['viostor/w11/amd64', 'vioscsi/w11/amd64'], seededTest('refused'));
  fs.mkdirSync(folder.file('nothing'));
  const refusal = (machine: Machine, virtioWin: string): string => {
    try {
      machine.plan('qemu-virtio', { virtioWin });
    } catch (error) {
      const said = error instanceof Error ? error.message : '';
      expect(said).not.toContain('\n');
      return said;
    }
    throw new Error('was not refused');
  };
  const software = filledHive(softwareLines);
  const refusalOf = (system: Buffer, ...virtioWin: readonly string[]): string[] => {
    using own = new TempFolder();
    const machine = windowsWith(context, own, { [systemFile]: system, [softwareFile]: software }, 3);
    return virtioWin.map((one) => refusal(machine, one));
  };
  const good = filledHive([...smallSystem, ...place, '[\\DriverDatabase]'], 64 * 1024);
  expect(refusalOf(good, folder.file('nothing'), folder.file('absent'))).toEqual([
    expect.stringMatching(/nothing: has neither a folder viostor or vioscsi/),
    expect.stringMatching(/absent: is no folder that can be read; give --virtio-win/),
  ]);
  expect(refusalOf(filledHive([...smallSystem, '[\\DriverDatabase]'], 64 * 1024), root)).toEqual([
    expect.stringMatching(/ControlSet001: does not say what processor this Windows is for/),
  ]);
  expect(refusalOf(filledHive([...smallSystem, ...place], 64 * 1024), root)).toEqual([
    expect.stringMatching(/SYSTEM: has no DriverDatabase to enter viostor in; install virtio-win/),
  ]);
  expect(refusalOf(withoutRoom(filledHive([...smallSystem, ...place, '[\\DriverDatabase]'])), root)).toEqual([
    expect.stringMatching(/SYSTEM: no room for a cell of .*, to enter the drivers; install virtio-win/),
  ]);
});
