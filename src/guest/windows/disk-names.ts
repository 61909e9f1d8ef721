/** How Windows names the partitions of its disk. */
import type { Guid } from '../../bytes/guid.ts';
import type { Partition, PartitionTable } from '../../volume/partition-table.ts';
import type { PartitionName } from './bcd.ts';
import type { MountedDevice } from './mounted-devices.ts';

/** MountedDevices name no disk beside the partition's GUID: any will do. */
const anyDisk: Guid = '';

/** The name that a partition has on this disk; undefined where its table gives it none. */
export function nameOf(table: PartitionTable | undefined, partition: Partition | undefined): PartitionName | undefined {
  if (table === undefined || partition === undefined) return undefined;
  if (table.style === 'mbr') return { style: 'mbr', startBytes: partition.startBytes, signature: table.diskSignature };
  if (table.diskGuid === undefined || partition.guid === undefined) return undefined;
  return { style: 'gpt', partition: partition.guid, disk: table.diskGuid };
}

/** A drive letter's partition as a device's name. */
export function nameOfMounted({ partition }: MountedDevice): PartitionName {
  return partition.style === 'mbr' ? partition : { style: 'gpt', partition: partition.partition, disk: anyDisk };
}

export function sameName(a: PartitionName, b: PartitionName): boolean {
  if (a.style === 'mbr' && b.style === 'mbr') return a.startBytes === b.startBytes && a.signature === b.signature;
  if (a.style === 'gpt' && b.style === 'gpt')
    return a.partition === b.partition && (a.disk === b.disk || a.disk === anyDisk || b.disk === anyDisk);
  return a.style === 'boot' && b.style === 'boot';
}

export function describeName(name: PartitionName): string {
  if (name.style === 'boot') return 'where it was started from';
  if (name.style === 'mbr') return `byte ${name.startBytes} of disk 0x${name.signature.toString(16).padStart(8, '0')}`;
  return `partition {${name.partition}}${name.disk === anyDisk ? '' : ` of disk {${name.disk}}`}`;
}
