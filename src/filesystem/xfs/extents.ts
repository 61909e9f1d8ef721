/** Which blocks a file has: extents in its inode, or a tree of them. Holes and preallocated blocks have no run. */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { checkCrc, type Inode, type Xfs } from './inodes.ts';
import * as format from './layout.ts';

/** Blocks [file, file + count) of the file begin at byte `offset` of the volume. */
export interface BlockRun {
  readonly file: number;
  readonly offset: number;
  readonly count: number;
}

const maxRuns = 300_000;
const maxLevel = 9;

/** @throws FormatError, IntegrityError, UnsupportedError */
export function runsOf(fs: Xfs, inode: Inode): BlockRun[] {
  if ((inode.flags & format.inodeFlags.realtime) !== 0)
    throw new UnsupportedError(`XFS: inode ${inode.number} lies on a realtime device; it is not read`);
  if (inode.extentCount > maxRuns)
    throw new UnsupportedError(
      `XFS: inode ${inode.number} has ${inode.extentCount} extents, more than ${maxRuns}; it is not read`,
    );
  const runs: BlockRun[] = [];
  if (inode.format === format.forkFormats.extents)
    readExtents(fs, inode.fork, 0, inode.extentCount, inode.number, runs);
  else if (inode.format === format.forkFormats.tree) readRoot(fs, inode, runs);
  else throw new FormatError(`XFS inode ${inode.number}`, 'format', 0, `${inode.format} has no blocks`);
  let end = 0;
  for (const run of runs) {
    if (run.file < end) throw new FormatError(`XFS inode ${inode.number}`, 'extents', run.offset, 'are not in order');
    end = run.file + run.count;
  }
  return runs;
}

/** Byte offset of a block of the volume by its number. */
export function offsetOfBlock(fs: Xfs, block: bigint, count: number, what: string): number {
  const { agBlocksLog, agBlocks } = fs.super;
  const group = Number(block / 2n ** BigInt(agBlocksLog));
  const inGroup = Number(block % 2n ** BigInt(agBlocksLog));
  const linear = group * agBlocks + inGroup;
  if (inGroup + count > agBlocks || linear + count > fs.blockCount)
    throw new FormatError(what, 'block', inGroup, `${block} and ${count} blocks are not inside the volume`);
  return linear * fs.blockBytes;
}

function readExtents(fs: Xfs, bytes: Uint8Array, at: number, count: number, inode: number, runs: BlockRun[]): void {
  const what = `XFS inode ${inode}`;
  if (at + count * format.extentBytes > bytes.length)
    throw new FormatError(what, 'extents', at, `${count} do not fit ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let index = 0; index < count; index++) {
    const high = view.getBigUint64(at + index * format.extentBytes);
    const low = view.getBigUint64(at + index * format.extentBytes + 8);
    // From the top: 1 bit not written, 54 bits place in the file, 52 bits block, 21 bits count.
    const file = Number((high / 2n ** 9n) % 2n ** 54n);
    const block = (high % 2n ** 9n) * 2n ** 43n + low / 2n ** 21n;
    const length = Number(low % 2n ** 21n);
    if (length === 0) throw new FormatError(what, 'extent', at, 'has no blocks');
    const offset = offsetOfBlock(fs, block, length, what);
    if (runs.length >= maxRuns) throw new FormatError(what, 'extents', at, 'are more than it says');
    if (high < 2n ** 63n) runs.push({ file, offset, count: length });
  }
}

/** The root in the inode: level, count, room for keys, then block numbers. */
function readRoot(fs: Xfs, inode: Inode, runs: BlockRun[]): void {
  const { fork, number } = inode;
  const what = `XFS inode ${number}`;
  if (fork.length < 4) throw new FormatError(what, 'tree', 0, 'has no room');
  const view = new DataView(fork.buffer, fork.byteOffset, fork.byteLength);
  const level = view.getUint16(0);
  const count = view.getUint16(2);
  const room = Math.floor((fork.length - 4) / 16);
  if (level < 1 || level > maxLevel || count > room)
    throw new FormatError(what, 'tree', 0, `${count} records at level ${level}`);
  for (let index = 0; index < count; index++)
    readBlock(fs, view.getBigUint64(4 + room * 8 + index * 8), level - 1, number, runs);
}

function readBlock(fs: Xfs, block: bigint, level: number, inode: number, runs: BlockRun[]): void {
  const what = `XFS extent tree of inode ${inode}`;
  const offset = offsetOfBlock(fs, block, 1, what);
  const bytes = fs.reader.read(offset, fs.blockBytes, 'extent tree block');
  const isNew = fs.version === 5;
  const header = format.treeBlock.parse(bytes);
  if (Buffer.from(header.magic).toString('latin1') !== (isNew ? 'BMA3' : 'BMAP'))
    throw new FormatError(what, 'magic', offset, 'is wrong');
  if (isNew) checkCrc(bytes, format.treeBlockCrcOffset, what);
  const start = isNew ? format.treeBlockBytes.version5 : format.treeBlockBytes.version4;
  const room = Math.floor((fs.blockBytes - start) / 16);
  if (header.level !== level || header.records > room)
    throw new FormatError(
      what,
      'header',
      offset,
      `${header.records} records at level ${header.level}, where ${level} belongs`,
    );
  if (level === 0) return readExtents(fs, bytes, start, header.records, inode, runs);
  const view = new DataView(bytes.buffer);
  for (let index = 0; index < header.records; index++)
    readBlock(fs, view.getBigUint64(start + room * 8 + index * 8), level - 1, inode, runs);
}
