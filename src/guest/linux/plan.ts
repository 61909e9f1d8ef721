/**
 * The plan for a Linux guest: drivers for the new controller in an initramfs that is loaded besides its own, names of disks where its
 * configuration has them, a console where one is asked for.
 *
 * Around a bare volume the boot loader is ours, and says what is booted. A whole disk boots by its own GRUB: then the initramfs goes into free
 * sectors before the first partition, and grub.cfg is made to name it, in place.
 */
import { gzipSync } from 'node:zlib';
import { alignUp } from '../../base/ranges.ts';
import type { FileEdit } from '../../filesystem/by-path.ts';
import { isRefusal, type GuestDisk } from '../../volume/open-disk.ts';
import type { Change, Patch } from '../../filesystem/edit/patch.ts';
import type { GuestPlan, LinuxBoot, Target } from '../plan.ts';
import { readBootFacts, type BootFacts } from './boot-facts.ts';
import { editEntry, renameInLine } from './boot-menu-edit.ts';
import { freeSpaceBeforePartitions } from './free-space.ts';
import { versionOf } from './grub-menu.ts';
import { hardware, storageDrivers, type Hardware } from './hardware.ts';
import { additionalInitramfs } from './initramfs.ts';
import { moduleName } from './module-index.ts';
import { findModules } from './modules.ts';
import { findLinux, mapperName, readText, type Found, type LinuxSystem } from './system.ts';
import { renameInTable, type TableEdits } from './tables.ts';

export interface LinuxPlanOptions {
  /** The partition table and boot loader around the guest's volumes are ours. */
  readonly wrapped: boolean;
  /** A serial port that the kernel is to write to and read from: `ttyS0`. */
  readonly console?: string | undefined;
}

const sectorBytes = 512;
const efiSystemType = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';

/** @returns undefined where there is no Linux; @throws UnsupportedError where it is one that is not reconfigured */
export function planLinux(guest: GuestDisk, target: Target, options: LinuxPlanOptions): GuestPlan | undefined {
  const system = findLinux(guest);
  if (system === undefined) return undefined;
  const facts = readBootFacts(system);
  const draft = new Draft(guest, [
    ...guest.warnings,
    ...system.warnings,
    ...system.root.fileSystem.warnings,
    ...facts.warnings,
  ]);
  renameDevices(system, hardware[target], draft);
  const initramfs = driversFor(facts, system, hardware[target], draft);
  const console = consoleArguments(options.console, facts);
  const boot = options.wrapped ? wrappedBoot(system, facts, console, draft) : undefined;
  if (!options.wrapped) editOwnMenu(guest, system, facts, hardware[target], console, initramfs, draft);
  return {
    guest: describe(guest, system, facts),
    changes: draft.changes,
    patches: draft.patches,
    warnings: draft.warnings,
    ...(options.wrapped && initramfs !== undefined ? { initramfs } : {}),
    ...(boot === undefined ? {} : { boot }),
  };
}

/** Undefined where none is asked for, or the guest's own entry has it already. */
function consoleArguments(port: string | undefined, { menu }: BootFacts): string | undefined {
  const own = menu?.standard?.arguments.split(' ') ?? [];
  const isThere = own.some((word) => word === `console=${port}` || word.startsWith(`console=${port},`));
  return port === undefined || isThere ? undefined : `console=tty0 console=${port},115200`;
}

/** What has been planned so far. */
class Draft {
  readonly changes: Change[] = [];
  readonly patches: Patch[] = [];
  readonly warnings: string[];
  readonly #guest: GuestDisk;

  constructor(guest: GuestDisk, warnings: readonly string[]) {
    this.#guest = guest;
    this.warnings = [...new Set(warnings)];
  }

  /** Edits of one file, or, where it cannot be patched in place, a warning. Returns whether they are made. */
  edit(place: Found, name: string, { edits, changes, warnings }: TableEdits): boolean {
    this.warnings.push(...warnings);
    if (edits.length === 0) return true;
    const files: FileEdit[] = edits.map(({ offset, after }) => ({ path: place.path, fileOffset: offset, after }));
    try {
      this.patches.push(...place.volume.toDisk(place.fileSystem.replace(files)));
      this.changes.push(...changes);
      return true;
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.warnings.push(`${name} stays as it is: ${error.message}`);
      return false;
    }
  }

  /** Bytes for sectors that hold zeros now. */
  fill(offsetBytes: number, after: Uint8Array): void {
    const before = new Uint8Array(after.length);
    this.#guest.disk.read(before, offsetBytes);
    this.patches.push({ offsetBytes, before, after });
  }
}

function renameDevices(system: LinuxSystem, { prefix, controller, named }: Hardware, draft: Draft): void {
  const naming = { prefix, controllers: named ?? controller };
  for (const [path, column] of [
    ['/etc/fstab', 0],
    ['/etc/crypttab', 1],
  ] as const) {
    const place = system.find(path);
    const text = readText(place.fileSystem, place.path);
    if (text !== undefined) draft.edit(place, path, renameInTable(path, text, column, naming));
  }
}

/** @returns the initramfs that is to be loaded besides the guest's own; undefined where nothing is missing there, or nothing can be had */
function driversFor(facts: BootFacts, system: LinuxSystem, target: Hardware, draft: Draft): Uint8Array | undefined {
  const { modules: kernel, contents, version } = facts;
  if (kernel === undefined) {
    draft.warnings.push(
      `/lib/modules/${version} holds no modules.dep: whether the kernel has drivers for ${target.controller} cannot be seen`,
    );
    return undefined;
  }
  const found = findModules(kernel, target.modules);
  const present = new Set(contents?.modules.map(moduleName));
  const missing = found.modules.filter((name) => !present.has(name));
  const absent = found.absent.filter((name) => name !== 'ata_generic' && name !== 'hyperv_keyboard');
  if (absent.length > 0)
    draft.warnings.push(`the kernel ${version} has no ${absent.join(', ')}: such a controller will not be found`);
  if (missing.length === 0) return undefined;
  if (facts.initramfs === undefined) {
    draft.warnings.push(`the kernel ${version} has no initramfs in /boot: it must have the drivers built in`);
    return undefined;
  }
  draft.changes.push({
    what: 'drivers',
    where: `initramfs of ${version}`,
    old:
      contents === undefined
        ? 'not known'
        : [...present].filter((name) => storageDrivers.includes(name)).join(', ') || 'no disk controllers',
    new: `and ${missing.join(', ')}`,
    why: `the disk is on ${target.controller}; the modules are the guest's own, from ${kernel.folder}`,
  });
  const libIsLink = system.root.fileSystem.stat('/usr/lib/modules') !== undefined;
  return additionalInitramfs(kernel, missing, contents, libIsLink);
}

/** What the boot loader around a volume is to start: what the guest's own would. */
function wrappedBoot(system: LinuxSystem, facts: BootFacts, console: string | undefined, draft: Draft): LinuxBoot {
  const { root } = system;
  const own = facts.menu?.standard?.arguments.split(' ').filter((word) => !word.startsWith('$') && word !== '');
  const flags = root.subvolume === undefined || root.subvolume === '/' ? [] : [`rootflags=subvol=${root.subvolume}`];
  const words = own ?? [`root=UUID=${root.fileSystem.uuid}`, 'ro', ...flags];
  const stable = words.map((word) =>
    renameInLine(word, 'sd') !== renameInLine(word, 'vd') && word.startsWith('root=')
      ? `root=UUID=${root.fileSystem.uuid}`
      : word,
  );
  const line = [...stable, ...(console === undefined ? [] : [console])].join(' ');
  draft.changes.push({
    what: 'kernel line',
    where: 'boot loader around the volume',
    old: own === undefined ? 'none' : own.join(' '),
    new: line,
    why:
      own === undefined
        ? 'the guest has no GRUB menu; its newest kernel is booted'
        : "the guest's own default entry is booted",
  });
  return {
    kernel: pathForGrub(facts.kernel),
    initrds: facts.initramfs === undefined ? [] : [pathForGrub(facts.initramfs)],
    arguments: line,
    ...placeForGrub(facts.kernel),
  };
}

function placeForGrub({ volume: { partition, logical } }: Found): Pick<LinuxBoot, 'partition' | 'device'> {
  if (partition !== undefined) return { partition: partition.number };
  if (logical === undefined) return {};
  return { device: `lvm/${mapperName(logical)}` };
}

/** GRUB sees all of a btrfs, with subvolumes as folders of its top level. */
function pathForGrub({ path, subvolume }: Found): string {
  return subvolume === undefined || subvolume === '/' ? path : `/${subvolume}${path}`;
}

function editOwnMenu(
  guest: GuestDisk,
  { root: { volume, fileSystem } }: LinuxSystem,
  facts: BootFacts,
  { prefix, named }: Hardware,
  console: string | undefined,
  initramfs: Uint8Array | undefined,
  draft: Draft,
): void {
  const { menu } = facts;
  if (guest.table === undefined) {
    draft.warnings.push(
      'the disk is a single volume and boots nowhere by itself; make the plugin file with --boot, and reconfigure that',
    );
    return;
  }
  const extra = initramfs === undefined ? undefined : placeInitramfs(guest, initramfs, facts, draft);
  if (menu === undefined) {
    if (extra !== undefined || console !== undefined)
      draft.warnings.push('there is no grub.cfg that could be changed; drivers and console are not added');
    return;
  }
  const root =
    named === undefined || volume.partition === undefined
      ? undefined
      : { partition: volume.partition.number, uuid: fileSystem.uuid };
  for (const entry of menu.entries) {
    const isStandard = entry === menu.standard;
    const wishes = {
      prefix,
      root,
      kernelArguments: isStandard ? console : undefined,
      extraInitrd: versionOf(entry.kernel) === facts.version ? extra?.name : undefined,
    };
    let edit = editEntry(menu.place.path, menu.text, entry, wishes);
    // Other entries are better off with the right names than with nothing.
    if (typeof edit === 'string' && !isStandard) edit = editEntry(menu.place.path, menu.text, entry, { prefix, root });
    if (typeof edit === 'string') {
      if (isStandard) draft.warnings.push(`grub.cfg stays as it is: ${edit}`);
      continue;
    }
    const made = draft.edit(menu.place, 'grub.cfg', { ...edit, warnings: [] });
    if (isStandard && made && extra !== undefined) draft.fill(extra.offset, extra.bytes);
  }
}

/** Compressed, since room is scarce; GRUB reads it by its sectors. */
function placeInitramfs(
  guest: GuestDisk,
  initramfs: Uint8Array,
  facts: BootFacts,
  draft: Draft,
): { name: string; offset: number; bytes: Uint8Array } | undefined {
  const packed = gzipSync(initramfs, { level: 9 });
  const bytes = new Uint8Array(alignUp(packed.length, sectorBytes));
  bytes.set(packed);
  const room = freeSpaceBeforePartitions(guest);
  const refused = (reason: string): undefined => {
    draft.warnings.push(
      `the drivers are not added, and the guest will not find its disk: ${reason}. Image its volumes by themselves, or add the drivers in the guest before the backup`,
    );
    return undefined;
  };
  if (facts.menu?.standard?.initrd === undefined)
    return refused('grub.cfg has no entry with an initramfs that could be given another');
  if (room === undefined || room.lengthBytes < bytes.length)
    return refused(
      `they need ${bytes.length} bytes, and before the first partition ${room?.lengthBytes ?? 0} are free`,
    );
  return { name: `(hd0)${room.offset / sectorBytes}+${bytes.length / sectorBytes}`, offset: room.offset, bytes };
}

function describe(guest: GuestDisk, system: LinuxSystem, facts: BootFacts): GuestPlan['guest'] {
  const types = guest.table?.partitions ?? [];
  const hasUefi = types.some(({ typeGuid, mbrType }) => typeGuid === efiSystemType || mbrType === 0xef);
  const biosBoot =
    guest.table?.style === 'mbr' || types.some(({ typeGuid }) => typeGuid === '21686148-6449-6e6f-744e-656564454649');
  const inInitramfs = facts.contents?.modules.map(moduleName) ?? [];
  const builtIn = [...(facts.modules?.builtIn ?? [])];
  return {
    os: 'linux',
    name: system.name,
    version: system.version,
    kernel: facts.version,
    firmware: [...(biosBoot ? ['bios' as const] : []), ...(hasUefi ? ['uefi' as const] : [])],
    diskNames: [
      ...new Set(
        system.fstab.map(({ device }) => device).filter((device) => /^(\/dev\/|UUID=|LABEL=|PARTUUID=)/.test(device)),
      ),
    ],
    storageDrivers: storageDrivers.filter((name) => inInitramfs.includes(name) || builtIn.includes(name)),
  };
}
