/** What an inode says of its file. */
import { permissionsOfMode, typeOfMode, type NodeStat } from '../file-system.ts';
import type { Inode } from './files.ts';
import { nsPerSecond } from '../../base/units.ts';

/** The kernel's own form of a device's number. */
const minorBits = 20n;

export function statOf(inode: Inode): NodeStat {
  const type = typeOfMode(inode.mode);
  const { uid, gid, device } = inode;
  return {
    type,
    sizeBytes: inode.sizeBytes,
    links: inode.links,
    permissions: permissionsOfMode(inode.mode),
    owner: { uid, gid },
    modifiedNs: timeOf(inode.modifiedSeconds, inode.modifiedNanos),
    changedNs: timeOf(inode.changedSeconds, inode.changedNanos),
    accessedNs: timeOf(inode.accessedSeconds, inode.accessedNanos),
    bornNs: timeOf(inode.bornSeconds, inode.bornNanos),
    device:
      type === 'character device' || type === 'block device'
        ? { major: Number((device >> minorBits) % 2n ** 12n), minor: Number(device % 2n ** minorBits) }
        : undefined,
  };
}

function timeOf(seconds: bigint, nanos: number): bigint {
  return BigInt.asIntN(64, seconds) * nsPerSecond + BigInt(nanos);
}
