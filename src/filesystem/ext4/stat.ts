/** What an inode says of its file. */
import { permissionsOfMode, typeOfMode, type NodeStat } from '../file-system.ts';
import type { Inode } from './inodes.ts';
import * as format from './layout.ts';
import { nsPerSecond } from '../../base/units.ts';

export function statOf(inode: Inode): NodeStat {
  const type = typeOfMode(inode.mode);
  const view = new DataView(inode.bytes.buffer, inode.bytes.byteOffset, inode.bytes.byteLength);
  const end = inode.bytes.length > 128 ? 128 + view.getUint16(format.extraSizeOffset, true) : 128;
  const word = (offset: number): number | undefined =>
    offset + 4 <= Math.min(end, inode.bytes.length) ? view.getUint32(offset, true) : undefined;
  const { changed, modified, accessed, born } = format.extraTimeOffsets;
  const bornSeconds = word(format.bornSecondsOffset);
  return {
    type,
    sizeBytes: inode.sizeBytes,
    links: inode.links,
    permissions: permissionsOfMode(inode.mode),
    owner: { uid: inode.uidLow + inode.uidHigh * 0x1_0000, gid: inode.gidLow + inode.gidHigh * 0x1_0000 },
    modifiedNs: timeOf(inode.modifiedSeconds, word(modified)),
    changedNs: timeOf(inode.changedSeconds, word(changed)),
    accessedNs: timeOf(inode.accessedSeconds, word(accessed)),
    bornNs: bornSeconds === undefined ? undefined : timeOf(bornSeconds, word(born)),
    device: type === 'character device' || type === 'block device' ? deviceOf(inode.block) : undefined,
  };
}

function timeOf(seconds: number, extra = 0): bigint {
  const whole = BigInt(seconds | 0) + BigInt(extra % 4) * 2n ** 32n;
  return whole * nsPerSecond + BigInt(Math.floor(extra / 4));
}

/** The first word has a device of the old form, of 8 bits each; where it is zero the second has one of the new. */
function deviceOf(block: Uint8Array): { readonly major: number; readonly minor: number } {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const old = view.getUint32(0, true);
  if (old !== 0) return { major: (old >>> 8) % 0x100, minor: old % 0x100 };
  const found = view.getUint32(4, true);
  return { major: (found >>> 8) % 0x1000, minor: (found % 0x100) + (found >>> 20) * 0x100 };
}
