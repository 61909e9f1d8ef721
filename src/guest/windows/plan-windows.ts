/**
 * The plan for a Windows guest, 7 to 11 and Server 2008 R2 to 2025: its registry, its boot configuration, its boot sector, a hibernated
 * session, and drivers from a folder of this host. What is there is changed in place; what cannot be is a warning that says what to do.
 */
import type { FileEdit } from '../../filesystem/by-path.ts';
import type { GuestDisk } from '../../volume/open-disk.ts';
import { NtfsVolume } from '../../filesystem/ntfs/volume.ts';
import { checkPatches, type Change, type Patch } from '../../filesystem/edit/patch.ts';
import { type GuestPlan, type Target } from '../plan.ts';
import type { PartitionName } from './bcd.ts';
import { placeBootSector } from './boot-sector.ts';
import { matchLoaders, pointDevices, storePaths } from './boot-stores.ts';
import { describeName, nameOf, nameOfMounted, sameName } from './disk-names.ts';
import { addFallbackLoader } from './fallback-loader.ts';
import { discardHibernation } from './hibernation.ts';
import { findInstallation, rememberedName, type Installation, type WindowsVolume } from './installation.ts';
import { driveLetter, encodePartition, mountedDevicesKey, readMountedDevices } from './mounted-devices.ts';
import { RecordedEdits } from './recorded-edits.ts';
import type { Driver } from './driver-folder.ts';
import { addDrivers, driversFor, registerDrivers, startVirtio } from './virtio.ts';
import { bootDrivers, disableForeign, plainStarts, startControllers } from './services.ts';

/**
 * Plans for the first Windows on the disk.
 * @returns undefined where there is none
 * @throws UnsupportedError when it is older than Windows 7, or cannot take drivers that are to be added; FormatError when a structure of it
 * is broken; UsageError, UnavailableError, CapacityError where the folder of drivers has none for it
 */
export function planWindows(guest: GuestDisk, target: Target, options: WindowsPlanOptions = {}): GuestPlan | undefined {
  const installation = findInstallation(guest.volumes);
  return installation === undefined ? undefined : new Planning(guest, installation, target, options).plan();
}

export interface WindowsPlanOptions {
  /** A folder of this host with virtio's drivers, which the guest is to get. For `qemu-virtio` only. */
  readonly virtioWin?: string | undefined;
}

class Planning {
  readonly #guest: GuestDisk;
  readonly #found: Installation;
  readonly #target: Target;
  readonly #virtioWin: string | undefined;
  readonly #system: RecordedEdits;
  readonly #changes: Change[] = [];
  readonly #warnings: string[];
  readonly #edits = new Map<WindowsVolume, FileEdit[]>();
  readonly #patches: Patch[] = [];

  constructor(guest: GuestDisk, found: Installation, target: Target, { virtioWin }: WindowsPlanOptions) {
    this.#guest = guest;
    this.#found = found;
    this.#target = target;
    this.#virtioWin = virtioWin;
    this.#system = new RecordedEdits(found.system);
    const { windows, version, system } = found;
    this.#warnings = [...guest.warnings, ...windows.fileSystem.warnings, ...version.warnings, ...system.warnings];
  }

  plan(): GuestPlan {
    const { version, controlSets, stores, windows, system } = this.#found;
    const storageDrivers = bootDrivers(this.#system, controlSets[0]);
    const diskNames = readMountedDevices(system.editor.hive).map(
      (device) => `${device.name.replace('\\DosDevices\\', '')} ${describeName(nameOfMounted(device))}`,
    );
    this.#planServices();
    this.#planNames();
    this.#planHibernation();
    this.#planFallbackLoader();
    this.#checkFirmware();
    this.#changes.unshift(...this.#system.changes);
    this.#addEdits(windows, system.edits());
    for (const store of stores) this.#addEdits(store.on, store.hive.edits());
    return {
      guest: {
        os: 'windows',
        name: version.name,
        version: version.version,
        firmware: [...new Set(stores.map((store) => store.firmware))],
        diskNames,
        storageDrivers,
      },
      changes: this.#changes,
      patches: checkPatches([...this.#patches, ...this.#filePatches()], this.#guest.disk),
      warnings: [...new Set(this.#warnings)],
    };
  }

  #planServices(): void {
    const added = this.#planDrivers();
    for (const controlSet of this.#found.controlSets) {
      const started = startControllers(this.#system, controlSet, this.#target);
      if (started.length === 0)
        this.#warnings.push(
          `${controlSet}: Windows has no driver of its own for a boot disk of ${this.#target}; it will not start there`,
        );
      if (this.#target === 'qemu-virtio')
        this.#warnings.push(...startVirtio(this.#system, this.#found.windows.fileSystem, controlSet, added));
      plainStarts(this.#system, controlSet);
      disableForeign(this.#system, controlSet);
    }
  }

  /** Drivers of a folder of this host: their files, and what the registry says of them. */
  #planDrivers(): Driver[] {
    if (this.#virtioWin === undefined) return [];
    const { windows, version, controlSets } = this.#found;
    const drivers = driversFor(this.#virtioWin, this.#system, windows.fileSystem, controlSets[0], version);
    const { patches, changes } = addDrivers(windows.fileSystem, drivers);
    this.#changes.push(...changes);
    this.#patches.push(...windows.volume.toDisk(patches));
    for (const controlSet of controlSets) registerDrivers(this.#system, controlSet, drivers, version);
    return drivers;
  }

  /** Drive letters, boot entries and the boot sector say where partitions are. */
  #planNames(): void {
    const { windows, volumes, stores } = this.#found;
    const { table } = this.#guest;
    const now = nameOf(table, windows.volume.partition);
    if (now === undefined) {
      this.#warnings.push(
        'no partition table names the volume of Windows: its drive letters, boot entries and boot sector are left as they are',
      );
      return;
    }
    const before = rememberedName(this.#found);
    if (before !== undefined && !sameName(before, now)) this.#mountAs(before, now);
    const present = volumes.flatMap(({ volume }) => nameOf(table, volume.partition) ?? []);
    for (const store of stores) {
      this.#warnings.push(...store.hive.warnings, ...store.on.fileSystem.warnings);
      const own = nameOf(table, store.on.volume.partition) ?? now;
      const edits = pointDevices(store, { windows: now, windowsBefore: before, store: own, present });
      this.#changes.push(...edits.changes, ...matchLoaders(store));
      this.#warnings.push(...edits.warnings);
    }
    for (const volume of volumes) this.#planBootSector(volume);
  }

  #mountAs(before: PartitionName, now: PartitionName): void {
    if (now.style === 'boot') return;
    const shown = [describeName(before), describeName(now)] as const;
    const { drive } = this.#found.version;
    const why = 'the system drive keeps its letter on this disk';
    const what = `${drive}: is the partition of Windows`;
    this.#system.setBinary(mountedDevicesKey, driveLetter(drive), encodePartition(now), shown, what, why);
  }

  /** Volumes that BIOS code may be started from: that of Windows, and that of the boot manager. */
  #planBootSector(on: WindowsVolume): void {
    const { fileSystem, volume } = on;
    const ntfs = fileSystem.volume;
    if (!(ntfs instanceof NtfsVolume) || volume.partition === undefined) return;
    if (on !== this.#found.windows && fileSystem.stat(storePaths.bios) === undefined) return;
    const { patches, changes } = placeBootSector(volume.disk, ntfs, volume.partition.startBytes, volume.name);
    this.#changes.push(...changes);
    this.#patches.push(...volume.toDisk(patches));
  }

  #planHibernation(): void {
    const { windows } = this.#found;
    const { edits, changes, warnings } = discardHibernation(windows.fileSystem);
    this.#addEdits(windows, edits);
    this.#changes.push(...changes);
    this.#warnings.push(...warnings);
  }

  #planFallbackLoader(): void {
    for (const { on, firmware } of this.#found.stores) {
      if (firmware !== 'uefi') continue;
      const { patches, changes, warnings } = addFallbackLoader(on.fileSystem);
      this.#patches.push(...on.volume.toDisk(patches));
      this.#changes.push(...changes);
      this.#warnings.push(...warnings);
    }
  }

  #checkFirmware(): void {
    const { stores } = this.#found;
    const has = (firmware: 'bios' | 'uefi'): boolean => stores.some((store) => store.firmware === firmware);
    if (stores.length === 0)
      this.#warnings.push(
        `no boot configuration is on this disk (${storePaths.bios} or ${storePaths.uefi}): Windows needs its boot partition too`,
      );
    else if (this.#target === 'hyperv-gen2' && !has('uefi'))
      this.#warnings.push('this Windows is started by a BIOS, and Hyper-V generation 2 has UEFI only: use hyperv-gen1');
    else if (this.#target === 'hyperv-gen1' && !has('bios'))
      this.#warnings.push('this Windows is started by UEFI, and Hyper-V generation 1 has a BIOS only: use hyperv-gen2');
  }

  #addEdits(on: WindowsVolume, edits: readonly FileEdit[]): void {
    this.#edits.set(on, [...(this.#edits.get(on) ?? []), ...edits]);
  }

  #filePatches(): Patch[] {
    return [...this.#edits].flatMap(([{ volume, fileSystem }, edits]) => volume.toDisk(fileSystem.replace(edits)));
  }
}
