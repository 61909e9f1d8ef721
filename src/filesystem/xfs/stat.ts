/** What an inode says of its file. */
import { permissionsOfMode, typeOfMode, type NodeStat } from '../file-system.ts';
import type { Inode } from './inodes.ts';
import * as format from './layout.ts';
import { nsPerSecond } from '../../base/units.ts';

export function statOf(inode: Inode): NodeStat {
  const type = typeOfMode(inode.mode);
  const { bigTime, born } = inode;
  return {
    type,
    sizeBytes: inode.sizeBytes,
    links: inode.links,
    permissions: permissionsOfMode(inode.mode),
    owner: { uid: inode.uid, gid: inode.gid },
    modifiedNs: timeOf(inode.modified, bigTime),
    changedNs: timeOf(inode.changed, bigTime),
    accessedNs: timeOf(inode.accessed, bigTime),
    bornNs: born === undefined ? undefined : timeOf(born, bigTime),
    device: inode.format === format.forkFormats.device ? deviceOf(inode.fork) : undefined,
  };
}

function timeOf(stored: bigint, bigTime: boolean): bigint {
  if (bigTime) return stored - format.bigTimeStartSeconds * nsPerSecond;
  return BigInt.asIntN(32, stored / 2n ** 32n) * nsPerSecond + (stored % 2n ** 32n);
}

/** 14 bits and 18 bits. Pipes and sockets are of this format, too, and are no device. */
function deviceOf(fork: Uint8Array): NodeStat['device'] {
  const found = new DataView(fork.buffer, fork.byteOffset, fork.byteLength).getUint32(0);
  return found === 0 ? undefined : { major: Math.floor(found / 2 ** 18), minor: found % 2 ** 18 };
}
