/** A Windows on a disk: its volume, its SYSTEM hive, the boot configuration stores beside it, and what it calls its disks. */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import type { GivenTable } from '../../bootable/plan.ts';
import type { FilesByPath } from '../../filesystem/by-path.ts';
import type { GuestVolume } from '../../volume/open-disk.ts';
import { bootManager, readBcd, type PartitionName } from './bcd.ts';
import { storePaths, type BootStore } from './boot-stores.ts';
import { nameOfMounted, sameName } from './disk-names.ts';
import { LoadedHive } from './loaded-hive.ts';
import { driveLetter, readMountedDevices } from './mounted-devices.ts';
import type { Hive } from './registry/hive.ts';
import { readVersion, type WindowsVersion } from './version.ts';

export interface WindowsVolume {
  readonly volume: GuestVolume;
  readonly fileSystem: FilesByPath;
}

export interface PlacedStore extends BootStore {
  readonly on: WindowsVolume;
}

export interface Installation {
  readonly volumes: readonly WindowsVolume[];
  readonly windows: WindowsVolume;
  readonly system: LoadedHive;
  /** Those that Windows starts from, the one of its last start first. */
  readonly controlSets: readonly [string, ...string[]];
  readonly version: WindowsVersion;
  readonly stores: readonly PlacedStore[];
}

export const systemPath = '/Windows/System32/config/SYSTEM';
const maxControlSet = 999;

/**
 * The first Windows of these volumes; undefined where there is none.
 * @throws FormatError when a hive of it is broken, UnsupportedError when it is older than Windows 7
 */
export function findInstallation(all: readonly GuestVolume[]): Installation | undefined {
  const volumes = all.flatMap((volume) =>
    isForWindows(volume.fileSystem) ? [{ volume, fileSystem: volume.fileSystem }] : [],
  );
  const windows = volumes.find(
    ({ fileSystem }) => fileSystem.kind === 'ntfs' && fileSystem.stat(systemPath)?.type === 'file',
  );
  if (windows === undefined) return undefined;
  const system = new LoadedHive(windows.fileSystem, systemPath);
  const controlSets = controlSetsOf(system.editor.hive);
  const version = readVersion(windows.fileSystem, system.editor.hive, controlSets[0]);
  return { volumes, windows, system, controlSets, version, stores: volumes.flatMap(storesOn) };
}

/** What Windows' registry and boot configuration call the partition of Windows. */
export function rememberedName({ system, version }: Installation): PartitionName | undefined {
  const letter = driveLetter(version.drive).toUpperCase();
  const device = readMountedDevices(system.editor.hive).find(({ name }) => name.toUpperCase() === letter);
  return device === undefined ? undefined : nameOfMounted(device);
}

/**
 * The partition table that Windows expects around its volumes, so that neither drive letters nor boot entries need an edit: for whoever
 * builds one. One entry for each volume, in order. Undefined where there is no Windows, or it remembers a table of the other style.
 */
export function tableForWindows(all: readonly GuestVolume[], style: 'mbr' | 'gpt'): GivenTable | undefined {
  const found = findInstallation(all);
  const own = found === undefined ? undefined : rememberedName(found);
  if (found === undefined || own?.style !== style) return undefined;
  const configured = found.stores.flatMap((store) =>
    readBcd(store.hive.editor.hive).devices.map((device) => ({ ...device, store })),
  );
  const names = all.map((volume) => {
    if (volume === found.windows.volume) return own;
    return configured.find(({ object, store }) => object === bootManager && store.on.volume === volume)?.partition;
  });
  const partitions = names.map((name) => {
    if (name?.style === 'mbr' && own.style === 'mbr' && name.signature === own.signature)
      return { startBytes: name.startBytes };
    return name?.style === 'gpt' ? { guid: name.partition } : {};
  });
  if (own.style === 'mbr') return { diskSignature: own.signature, partitions };
  const full = configured.find(({ partition }) => sameName(partition, own))?.partition;
  return full?.style === 'gpt' ? { diskGuid: full.disk, partitions } : { partitions };
}

/** Of a kind that Windows has, and not so broken that nothing is found on it: such a volume of data is no reason to refuse the system. */
function isForWindows(fileSystem: FilesByPath | undefined): fileSystem is FilesByPath {
  if (fileSystem === undefined || fileSystem.volume.paths !== 'windows') return false;
  try {
    fileSystem.stat(systemPath);
    fileSystem.stat(storePaths.bios);
    return true;
  } catch (error) {
    if (error instanceof FormatError || error instanceof UnsupportedError) return false;
    throw error;
  }
}

function storesOn(on: WindowsVolume): PlacedStore[] {
  const firmware = on.fileSystem.kind === 'ntfs' ? 'bios' : 'uefi';
  const path = storePaths[firmware];
  return on.fileSystem.stat(path)?.type === 'file' ? [{ firmware, hive: new LoadedHive(on.fileSystem, path), on }] : [];
}

function controlSetsOf(system: Hive): [string, ...string[]] {
  const select = system.key('Select');
  const numbers = new Set(
    [select?.dword('Current'), select?.dword('Default')].filter((number) => number !== undefined),
  );
  const [first, ...others] = [...numbers]
    .filter((number) => number <= maxControlSet)
    .map((number) => `ControlSet${String(number).padStart(3, '0')}`)
    .filter((name) => system.key(name) !== undefined);
  if (first === undefined)
    throw new UnsupportedError('SYSTEM: Select names no control set that is there: this Windows does not start');
  return [first, ...others];
}
