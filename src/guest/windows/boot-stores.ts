/**
 * The boot configuration stores of a disk: their devices are made to mean the partitions that are there, their paths the loaders of
 * the firmware that reads them.
 */
import type { Change } from '../../filesystem/edit/patch.ts';
import { bootManager, readBcd, setDevice, setPath, type Bcd, type PartitionName } from './bcd.ts';
import { describeName, sameName } from './disk-names.ts';
import type { LoadedHive } from './loaded-hive.ts';

/** By firmware: on the system partition, and on the EFI system partition. */
export const storePaths = { bios: '/Boot/BCD', uefi: '/EFI/Microsoft/Boot/BCD' } as const;

export interface BootStore {
  readonly firmware: 'bios' | 'uefi';
  readonly hive: LoadedHive;
}

export interface Partitions {
  /** The partition of Windows as the disk names it now, and as Windows knows it. */
  readonly windows: PartitionName;
  readonly windowsBefore: PartitionName | undefined;
  /** The partition that the store lies on. */
  readonly store: PartitionName;
  /** All partitions of the disk. */
  readonly present: readonly PartitionName[];
}

export interface StoreEdits {
  readonly changes: readonly Change[];
  readonly warnings: readonly string[];
}

const loaders = /\\(winload|winresume)\.(exe|efi)$/i;

/** Points the store's devices at the partitions that are there. */
export function pointDevices(store: BootStore, partitions: Partitions): StoreEdits {
  const bcd = readBcd(store.hive.editor.hive);
  const meanings = meaningsOf(bcd, partitions);
  const changes: Change[] = [];
  const unknown = new Set<string>();
  for (const device of bcd.devices) {
    if (device.partition.style === 'boot' || partitions.present.some((name) => sameName(name, device.partition)))
      continue;
    const meaning = meanings.find(({ from }) => sameName(from, device.partition));
    if (meaning === undefined) {
      unknown.add(describeName(device.partition));
      continue;
    }
    setDevice(store.hive.editor, device, meaning.to);
    store.hive.touch();
    changes.push({
      what: 'point a boot entry at its partition',
      where: `${store.hive.path}: {${device.object}}\\${device.element}`,
      old: describeName(device.partition),
      new: describeName(meaning.to),
      why: 'this disk has no partition of that name',
    });
  }
  const warnings = [...unknown].map(
    (name) => `${store.hive.path}: an entry means ${name}, which is not on this disk; it is left as it is`,
  );
  return { changes, warnings };
}

/** Loaders end in .exe for the BIOS and in .efi for UEFI. */
export function matchLoaders(store: BootStore): Change[] {
  const changes: Change[] = [];
  const extension = store.firmware === 'uefi' ? 'efi' : 'exe';
  for (const path of readBcd(store.hive.editor.hive).paths) {
    const found = loaders.exec(path.path);
    if (found === null || found[2]?.toLowerCase() === extension) continue;
    const now = `${path.path.slice(0, -extension.length)}${extension}`;
    setPath(store.hive.editor, path, now);
    store.hive.touch();
    const where = `${store.hive.path}: {${path.object}}\\${path.element}`;
    const why = `this store is read by ${store.firmware === 'uefi' ? 'UEFI' : 'BIOS'} firmware`;
    changes.push({ what: "start the firmware's own loader", where, old: path.path, new: now, why });
  }
  return changes;
}

/** What names that no partition has now must have meant. */
function meaningsOf(bcd: Bcd, partitions: Partitions): { from: PartitionName; to: PartitionName }[] {
  const meanings: { from: PartitionName; to: PartitionName }[] = [];
  const mean = (from: PartitionName | undefined, to: PartitionName): void => {
    const known =
      from === undefined || from.style === 'boot' || meanings.some((meaning) => sameName(meaning.from, from));
    if (!known) meanings.push({ from, to });
  };
  mean(partitions.windowsBefore, partitions.windows);
  for (const device of bcd.devices) {
    const starts = bcd.paths.find(({ object }) => object === device.object);
    if (starts !== undefined && loaders.test(starts.path)) mean(device.partition, partitions.windows);
  }
  for (const device of bcd.devices) if (device.object === bootManager) mean(device.partition, partitions.store);
  return meanings;
}
