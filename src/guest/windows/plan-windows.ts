/**
 * The plan for a Windows guest, 7 to 11 and Server 2008 R2 to 2025: its registry, its boot configuration, its boot sector and a
 * hibernated session. Everything is changed in place; what cannot be is a warning that says what to do.
 */
import { UnsupportedError } from '../../base/errors.ts';
import { sliceDisk } from '../../disk/slice.ts';
import type { Disk } from '../../disk/disk.ts';
import type { FileEdit } from '../file-system.ts';
import { checkPatches, type Change, type GuestPlan, type Patch, type Target } from '../plan.ts';
import { placeBootSector } from './boot-sector.ts';
import { matchLoaders, pointDevices, storePaths, type BootStore } from './boot-stores.ts';
import { readBcd, type PartitionName } from './bcd.ts';
import {
  describeName,
  expectedTable,
  nameOf,
  nameOfMounted,
  sameName,
  type ExpectedTable,
  type PlacedVolume,
  type WindowsDisk,
} from './disk-names.ts';
import { discardHibernation } from './hibernation.ts';
import { LoadedHive } from './loaded-hive.ts';
import { driveLetter, encodePartition, mountedDevicesKey, readMountedDevices } from './mounted-devices.ts';
import { NtfsVolume } from './ntfs/volume.ts';
import { RecordedEdits } from './recorded-edits.ts';
import { bootDrivers, disableForeign, plainStarts, startControllers } from './services.ts';
import { readVersion, type WindowsVersion } from './version.ts';
import type { WindowsFileSystem } from './windows-file-system.ts';

export interface WindowsVolume extends PlacedVolume {
  readonly fileSystem: WindowsFileSystem;
}

const systemPath = '/Windows/System32/config/SYSTEM';
const maxControlSet = 999;

/** The volume that holds a Windows, of those given. */
export function findWindows<V extends { readonly fileSystem: WindowsFileSystem }>(
  volumes: readonly V[],
): V | undefined {
  return volumes.find(({ fileSystem }) => fileSystem.kind === 'ntfs' && fileSystem.stat(systemPath)?.type === 'file');
}

/** What the table around a volume of Windows should say, for whoever builds one. */
export function tableForWindows(
  volumes: readonly { readonly fileSystem: WindowsFileSystem }[],
): ExpectedTable | undefined {
  const windows = findWindows(volumes);
  if (windows === undefined) return undefined;
  const system = new LoadedHive(windows.fileSystem, systemPath).editor.hive;
  const { drive } = readVersion(windows.fileSystem, system, controlSetsOf(system)[0] ?? '');
  const configured = storesOf(volumes).flatMap(({ hive }) =>
    readBcd(hive.editor.hive).devices.map(({ partition }) => partition),
  );
  return expectedTable(readMountedDevices(system), drive, configured);
}

/**
 * Plans for the first Windows on the disk.
 * @throws UnsupportedError when there is none, or it is older than Windows 7; FormatError when a structure is broken
 */
export function planWindows(
  disk: Disk,
  table: WindowsDisk,
  volumes: readonly WindowsVolume[],
  target: Target,
): GuestPlan {
  const windows = findWindows(volumes);
  if (windows === undefined)
    throw new UnsupportedError(`no volume of this disk has ${systemPath.slice(1)}: no Windows to reconfigure`);
  const planning = new Planning(disk, table, volumes, windows, target);
  return planning.plan();
}

function controlSetsOf(system: LoadedHive['editor']['hive']): string[] {
  const select = system.key('Select');
  const numbers = new Set(
    [select?.dword('Current'), select?.dword('Default')].filter((number) => number !== undefined),
  );
  const sets = [...numbers]
    .filter((number) => number <= maxControlSet)
    .map((number) => `ControlSet${String(number).padStart(3, '0')}`)
    .filter((name) => system.key(name) !== undefined);
  if (sets.length === 0)
    throw new UnsupportedError('SYSTEM: Select names no control set that is there: no Windows to reconfigure');
  return sets;
}

function storesOf<V extends { readonly fileSystem: WindowsFileSystem }>(
  volumes: readonly V[],
): (BootStore & { volume: V })[] {
  return volumes.flatMap((volume) => {
    const firmware = volume.fileSystem.kind === 'ntfs' ? 'bios' : 'uefi';
    const path = storePaths[firmware];
    if (volume.fileSystem.stat(path)?.type !== 'file') return [];
    return [{ firmware, hive: new LoadedHive(volume.fileSystem, path), volume } as const];
  });
}

class Planning {
  readonly #disk: Disk;
  readonly #table: WindowsDisk;
  readonly #volumes: readonly WindowsVolume[];
  readonly #windows: WindowsVolume;
  readonly #target: Target;
  readonly #system: RecordedEdits;
  readonly #controlSets: readonly string[];
  readonly #stores: readonly (BootStore & { volume: WindowsVolume })[];
  readonly #version: WindowsVersion;
  readonly #changes: Change[] = [];
  readonly #warnings: string[] = [];
  readonly #edits = new Map<WindowsVolume, FileEdit[]>();
  readonly #patches: Patch[] = [];

  constructor(
    disk: Disk,
    table: WindowsDisk,
    volumes: readonly WindowsVolume[],
    windows: WindowsVolume,
    target: Target,
  ) {
    this.#disk = disk;
    this.#table = table;
    this.#volumes = volumes;
    this.#windows = windows;
    this.#target = target;
    this.#system = new RecordedEdits(new LoadedHive(windows.fileSystem, systemPath));
    this.#controlSets = controlSetsOf(this.#system.hive.editor.hive);
    this.#stores = storesOf(volumes);
    this.#version = readVersion(windows.fileSystem, this.#system.hive.editor.hive, this.#controlSets[0] ?? '');
  }

  plan(): GuestPlan {
    const storageDrivers = bootDrivers(this.#system, this.#controlSets[0] ?? '');
    const mounted = readMountedDevices(this.#system.hive.editor.hive);
    const diskNames = mounted.map(
      (device) => `${device.name.replace('\\DosDevices\\', '')} ${describeName(nameOfMounted(device))}`,
    );
    this.#warnings.push(...this.#windows.fileSystem.warnings, ...this.#version.warnings, ...this.#system.hive.warnings);
    this.#planServices();
    this.#planNames();
    this.#planHibernation();
    this.#checkFirmware();
    this.#changes.unshift(...this.#system.changes);
    this.#addEdits(this.#windows, this.#system.hive.edits());
    for (const store of this.#stores) this.#addEdits(store.volume, store.hive.edits());
    const { name, version } = this.#version;
    const firmware = [...new Set(this.#stores.map((store) => store.firmware))];
    return {
      guest: { os: 'windows', name, version, firmware, diskNames, storageDrivers },
      changes: this.#changes,
      patches: checkPatches([...this.#patches, ...this.#filePatches()], this.#disk),
      warnings: this.#warnings,
    };
  }

  #planServices(): void {
    for (const controlSet of this.#controlSets) {
      const started = startControllers(this.#system, controlSet, this.#target);
      if (started.length === 0)
        this.#warnings.push(
          `${controlSet}: Windows has no driver of its own for a boot disk of ${this.#target}; it will not start there`,
        );
      plainStarts(this.#system, controlSet);
      disableForeign(this.#system, controlSet);
    }
  }

  /** Drive letters, boot entries and the boot sector say where partitions are. */
  #planNames(): void {
    const now = nameOf(this.#table, this.#windows);
    if (now === undefined) {
      this.#warnings.push(
        'this is a volume without a partition table: its drive letters, boot entries and boot sector are left as they are',
      );
      return;
    }
    const before = this.#mountedBefore();
    if (before !== undefined && !sameName(before, now)) this.#mountAs(before, now);
    const present = this.#volumes.flatMap((volume) => nameOf(this.#table, volume) ?? []);
    for (const store of this.#stores) {
      this.#warnings.push(
        ...store.hive.warnings,
        ...(store.volume === this.#windows ? [] : store.volume.fileSystem.warnings),
      );
      const own = nameOf(this.#table, store.volume) ?? now;
      const edits = pointDevices(store, { windows: now, windowsBefore: before, store: own, present });
      this.#changes.push(...edits.changes, ...matchLoaders(store));
      this.#warnings.push(...edits.warnings);
    }
    for (const volume of this.#volumes) this.#planBootSector(volume);
  }

  #mountedBefore(): PartitionName | undefined {
    const letter = driveLetter(this.#version.drive);
    const device = readMountedDevices(this.#system.hive.editor.hive).find(
      ({ name }) => name.toUpperCase() === letter.toUpperCase(),
    );
    return device === undefined ? undefined : nameOfMounted(device);
  }

  #mountAs(before: PartitionName, now: PartitionName): void {
    if (now.style === 'boot') return;
    const shown = [describeName(before), describeName(now)] as const;
    const why = 'the system drive keeps its letter on this disk';
    const letter = driveLetter(this.#version.drive);
    this.#system.setBinary(
      mountedDevicesKey,
      letter,
      encodePartition(now),
      shown,
      `${this.#version.drive}: is the partition of Windows`,
      why,
    );
  }

  /** Volumes that BIOS code may be started from: that of Windows, and that of the boot manager. */
  #planBootSector(volume: WindowsVolume): void {
    const { fileSystem } = volume;
    if (!(fileSystem instanceof NtfsVolume)) return;
    if (volume !== this.#windows && fileSystem.stat(storePaths.bios) === undefined) return;
    const slice = sliceDisk(this.#disk, volume.startBytes, volume.sizeBytes);
    const { patches, changes } = placeBootSector(slice, fileSystem, volume.startBytes);
    this.#changes.push(...changes);
    for (const patch of patches) this.#patches.push({ ...patch, offsetBytes: volume.startBytes + patch.offsetBytes });
  }

  #planHibernation(): void {
    const { edits, changes, warnings } = discardHibernation(this.#windows.fileSystem);
    this.#addEdits(this.#windows, edits);
    this.#changes.push(...changes);
    this.#warnings.push(...warnings);
  }

  #checkFirmware(): void {
    const has = (firmware: 'bios' | 'uefi'): boolean => this.#stores.some((store) => store.firmware === firmware);
    if (this.#stores.length === 0)
      this.#warnings.push(
        `no boot configuration is on this disk (${storePaths.bios} or ${storePaths.uefi}): Windows needs its boot partition too`,
      );
    else if (this.#target === 'hyperv-gen2' && !has('uefi'))
      this.#warnings.push('this Windows is started by a BIOS, and Hyper-V generation 2 has UEFI only: use hyperv-gen1');
    else if (this.#target === 'hyperv-gen1' && !has('bios'))
      this.#warnings.push('this Windows is started by UEFI, and Hyper-V generation 1 has a BIOS only: use hyperv-gen2');
  }

  #addEdits(volume: WindowsVolume, edits: readonly FileEdit[]): void {
    this.#edits.set(volume, [...(this.#edits.get(volume) ?? []), ...edits]);
  }

  #filePatches(): Patch[] {
    const patches: Patch[] = [];
    for (const [volume, edits] of this.#edits)
      for (const patch of volume.fileSystem.replace(edits))
        patches.push({ ...patch, offsetBytes: volume.startBytes + patch.offsetBytes });
    return patches;
  }
}
