/**
 * Whether the log holds what is not in place yet. The log is a ring of sectors of 512 bytes; each begins with the number of the round in
 * which it was written, or, at the front of a record, with a magic. Behind the newest sector lies one of an older round. A volume that was
 * unmounted cleanly has an unmount record there.
 */
import { firstIndex } from '../../base/search.ts';
import { UnsupportedError } from '../../base/errors.ts';
import { KiB } from '../../base/units.ts';
import { offsetOfBlock } from './extents.ts';
import type { Xfs } from './inodes.ts';

const sectorBytes = 512;
const recordMagic = 0xfeedbabe;
const cycleOffset = 4;
const versionOffset = 8;
const lengthOffset = 12;
const operationCountOffset = 40;
const recordSizeOffset = 320;
const operationFlagsOffset = 9;
const unmountFlag = 0x20;
/** A header sector has room for the first words of so much. */
const headerCovers = 32 * KiB;
/** A record has at most 256 KiB behind its header. */
const longestRecordSectors = (256 * KiB) / sectorBytes + 16;

/** @throws UnsupportedError where the log cannot be judged */
export function logIsDirty(fs: Xfs): boolean {
  if (fs.super.logStart === 0n) throw new UnsupportedError('XFS: its log is on another device');
  const start = offsetOfBlock(fs, fs.super.logStart, fs.super.logBlocks, 'XFS log');
  const count = (fs.super.logBlocks * fs.blockBytes) / sectorBytes;
  const sector = (index: number): DataView =>
    new DataView(fs.reader.read(start + index * sectorBytes, sectorBytes, 'log').buffer);
  const cycle = (index: number): number => {
    const view = sector(index);
    return view.getUint32(0) === recordMagic ? view.getUint32(cycleOffset) : view.getUint32(0);
  };
  if (count < 2) throw new UnsupportedError('XFS: its log is too small to be one');
  const head = findHead(count, cycle);
  for (let back = 1; back <= Math.min(longestRecordSectors, count); back++) {
    const at = (head - back + count) % count;
    const record = sector(at);
    if (record.getUint32(0) !== recordMagic) continue;
    const headers =
      record.getUint32(versionOffset) === 2 ? Math.ceil(record.getUint32(recordSizeOffset) / headerCovers) : 1;
    const data = at + Math.max(1, headers);
    const end = data + Math.ceil(record.getUint32(lengthOffset) / sectorBytes);
    const unmounts =
      record.getUint32(operationCountOffset) === 1 &&
      (sector(data % count).getUint8(operationFlagsOffset) & unmountFlag) !== 0;
    return !(unmounts && end % count === head);
  }
  return true;
}

/** The first sector that is older than the one before it; 0 when all are of one round. */
function findHead(count: number, cycle: (index: number) => number): number {
  const first = cycle(0);
  if (cycle(count - 1) === first) return 0;
  return firstIndex(count, (index) => cycle(index) !== first);
}
