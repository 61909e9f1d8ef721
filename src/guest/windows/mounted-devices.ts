/**
 * Which partition each drive letter means, as Windows keeps it in SYSTEM\MountedDevices: 12 bytes (disk signature, start) on an MBR
 * disk, 24 bytes (`DMIO:ID:` and the partition's GUID) on a GPT disk.
 */
import { guidFromBytes, guidToBytes, type Guid } from '../../bytes/guid.ts';
import { viewOf } from '../../bytes/view.ts';
import { type Hive } from './registry/hive.ts';

export type MountedPartition =
  | { readonly style: 'mbr'; readonly signature: number; readonly startBytes: number }
  | { readonly style: 'gpt'; readonly partition: Guid };

export interface MountedDevice {
  /** `\DosDevices\C:` */
  readonly name: string;
  readonly partition: MountedPartition;
}

export const mountedDevicesKey = 'MountedDevices';
const gptMark = 'DMIO:ID:';
const mbrBytes = 12;
const gptBytes = 24;
const maxDevices = 10_000;
const maxStartBytes = 2n ** 60n;

/** Entries that mean partitions; others mean drives without, by their hardware's name. */
export function readMountedDevices(system: Hive): MountedDevice[] {
  const devices: MountedDevice[] = [];
  for (const value of system.key(mountedDevicesKey)?.values() ?? []) {
    if (value.lengthBytes !== mbrBytes && value.lengthBytes !== gptBytes) continue;
    const partition = decodePartition(value.data());
    if (partition !== undefined) devices.push({ name: value.name, partition });
    if (devices.length > maxDevices) throw system.wrong('MountedDevices', value.cell, `more than ${maxDevices}`);
  }
  return devices;
}

export function driveLetter(letter: string): string {
  return `\\DosDevices\\${letter.toUpperCase()}:`;
}

export function encodePartition(partition: MountedPartition): Uint8Array {
  if (partition.style === 'gpt')
    return Buffer.concat([Buffer.from(gptMark, 'latin1'), guidToBytes(partition.partition)]);
  const data = new Uint8Array(mbrBytes);
  viewOf(data).setUint32(0, partition.signature, true);
  viewOf(data).setBigUint64(4, BigInt(partition.startBytes), true);
  return data;
}

function decodePartition(data: Uint8Array): MountedPartition | undefined {
  if (data.length === gptBytes)
    return Buffer.from(data.subarray(0, 8)).toString('latin1') === gptMark
      ? { style: 'gpt', partition: guidFromBytes(data.subarray(8)) }
      : undefined;
  const start = viewOf(data).getBigUint64(4, true);
  return start > maxStartBytes
    ? undefined
    : { style: 'mbr', signature: viewOf(data).getUint32(0, true), startBytes: Number(start) };
}
