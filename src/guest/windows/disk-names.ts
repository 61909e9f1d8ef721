/**
 * How Windows names the partitions of its disk, and which of these names a table that is built around its volume must carry, so that
 * neither MountedDevices nor the boot configuration needs an edit.
 */
import type { Guid } from '../../bytes/guid.ts';
import type { PartitionName } from './bcd.ts';
import type { MountedDevice } from './mounted-devices.ts';

/** The partition table that the guest's disk has. `none`: a volume without a disk around it. */
export interface WindowsDisk {
  readonly style: 'mbr' | 'gpt' | 'none';
  /** Of an MBR disk. */
  readonly signature?: number;
  /** Of a GPT disk. */
  readonly guid?: Guid;
}

export interface PlacedVolume {
  /** On the guest's disk. */
  readonly startBytes: number;
  readonly sizeBytes: number;
  /** Of its partition on a GPT disk. */
  readonly partition?: Guid;
}

/** What the table around a volume should say. */
export interface ExpectedTable {
  readonly style: 'mbr' | 'gpt';
  readonly diskSignature?: number;
  readonly diskGuid?: Guid;
  /** The first is that of Windows itself. */
  readonly partitions: readonly { readonly startOffsetBytes?: number; readonly guid?: Guid }[];
}

/** The name that a partition has on this disk; undefined where the disk gives it none. */
export function nameOf(disk: WindowsDisk, volume: PlacedVolume): PartitionName | undefined {
  if (disk.style === 'mbr' && disk.signature !== undefined)
    return { style: 'mbr', startBytes: volume.startBytes, signature: disk.signature };
  if (disk.style === 'gpt' && disk.guid !== undefined && volume.partition !== undefined)
    return { style: 'gpt', partition: volume.partition, disk: disk.guid };
  return undefined;
}

export function describeName(name: PartitionName): string {
  if (name.style === 'boot') return 'where it was started from';
  if (name.style === 'gpt') return `partition {${name.partition}} of disk {${name.disk}}`;
  return `byte ${name.startBytes} of disk 0x${name.signature.toString(16).padStart(8, '0')}`;
}

/** Equal names mean one partition. MountedDevices know no disk GUID, which is then left out. */
export function sameName(a: PartitionName, b: PartitionName): boolean {
  if (a.style === 'mbr' && b.style === 'mbr') return a.startBytes === b.startBytes && a.signature === b.signature;
  if (a.style === 'gpt' && b.style === 'gpt')
    return a.partition === b.partition && (a.disk === b.disk || a.disk === '' || b.disk === '');
  return a.style === 'boot' && b.style === 'boot';
}

/** A drive letter's partition as a device's name; of a GPT disk the disk stays open. */
export function nameOfMounted({ partition }: MountedDevice): PartitionName {
  return partition.style === 'mbr' ? partition : { style: 'gpt', partition: partition.partition, disk: '' };
}

/**
 * The table that Windows expects around its volume, from its drive letters and the devices of a boot configuration; undefined where
 * neither names the system drive.
 */
export function expectedTable(
  devices: readonly MountedDevice[],
  drive: string,
  configured: readonly PartitionName[],
): ExpectedTable | undefined {
  const own = devices.find(({ name }) => name.toUpperCase() === `\\DOSDEVICES\\${drive.toUpperCase()}:`);
  if (own === undefined) return undefined;
  const name = nameOfMounted(own);
  if (name.style === 'mbr') {
    const starts = new Set([name.startBytes]);
    for (const other of [...devices.map(nameOfMounted), ...configured])
      if (other.style === 'mbr' && other.signature === name.signature) starts.add(other.startBytes);
    const partitions = [...starts].map((startOffsetBytes) => ({ startOffsetBytes }));
    return { style: 'mbr', diskSignature: name.signature, partitions };
  }
  if (name.style === 'boot') return undefined;
  const disk = configured.find((other) => other.style === 'gpt' && other.partition === name.partition);
  const diskGuid = disk?.style === 'gpt' ? disk.disk : undefined;
  const guids = new Set([name.partition]);
  for (const other of configured) if (other.style === 'gpt' && other.disk === diskGuid) guids.add(other.partition);
  const partitions = [...guids].map((guid) => ({ guid }));
  return { style: 'gpt', partitions, ...(diskGuid === undefined ? {} : { diskGuid }) };
}
