/** The super block and the inodes: checked, with their checksums where the file system keeps them (version 5). */
import { FormatError, IntegrityError, UnsupportedError } from '../../base/errors.ts';
import { isPowerOfTwo, toOffset } from '../../base/ranges.ts';
import { KiB } from '../../base/units.ts';
import { crc32cWithoutField } from '../../bytes/checksum.ts';
import type { VolumeReader } from '../volume-reader.ts';
import * as format from './layout.ts';

export interface Xfs {
  readonly reader: VolumeReader;
  readonly super: format.SuperBlock;
  readonly version: 4 | 5;
  readonly blockBytes: number;
  readonly blockCount: number;
  readonly rootInode: number;
  readonly fileTypes: boolean;
}

export interface Inode extends Omit<format.InodeFields, 'sizeBytes' | 'extents' | 'manyExtents' | 'linksVersion1'> {
  readonly number: number;
  readonly sizeBytes: number;
  readonly extentCount: number;
  readonly reflinked: boolean;
  readonly bigTime: boolean;
  /** As the other times; undefined before version 3. */
  readonly born: bigint | undefined;
  /** What the inode holds of its data: the data, extents, or the root of a tree of them. */
  readonly fork: Uint8Array;
}

const maxInodeNumber = Number.MAX_SAFE_INTEGER;

/** @returns undefined where there is no XFS */
export function readSuperBlock(reader: VolumeReader): Xfs | undefined {
  if (reader.sizeBytes < 64 * KiB) return undefined;
  const bytes = reader.read(0, 512, 'super block');
  if (Buffer.from(bytes.subarray(0, 4)).toString('latin1') !== 'XFSB') return undefined;
  const found = format.superBlock.parse(bytes);
  const version = found.version % 16;
  if (version !== 4 && version !== 5)
    throw new UnsupportedError(`XFS: version ${version} is not known; it is not read`);
  checkGeometry(found);
  const limit = Math.floor(reader.sizeBytes / found.blockSize);
  const blockCount = toOffset(found.dataBlocks, limit, {
    structure: 'XFS super block',
    field: 'data blocks',
    offset: 8,
  });
  if (found.agBlocks === 0 || found.agCount === 0 || (found.agCount - 1) * found.agBlocks >= blockCount)
    throw broken('groups', `${found.agCount} of ${found.agBlocks} blocks`);
  if (version === 5) checkVersion5(reader, found);
  else if ((found.version & format.foldersVersion2) === 0)
    throw new UnsupportedError('XFS: folders of the first form are not read');
  const types =
    version === 5 ? found.incompatible & format.incompatible.fileTypes : found.features2 & format.fileTypesVersion4;
  const rootInode = toOffset(found.rootInode, maxInodeNumber, {
    structure: 'XFS super block',
    field: 'root inode',
    offset: 56,
  });
  return { reader, super: found, version, blockBytes: found.blockSize, blockCount, rootInode, fileTypes: types !== 0 };
}

function checkGeometry(found: format.SuperBlock): void {
  const { blockSize, blockLog, inodeSize, inodeLog, sectorSize, folderBlockLog } = found;
  if (!isPowerOfTwo(blockSize) || blockSize < 512 || blockSize > 64 * KiB || 2 ** blockLog !== blockSize)
    throw broken('block size', `${blockSize}`);
  if (inodeSize < 256 || inodeSize > 2 * KiB || inodeSize > blockSize || 2 ** inodeLog !== inodeSize)
    throw broken('inode size', `${inodeSize}`);
  if (2 ** found.inodesPerBlockLog * inodeSize !== blockSize)
    throw broken('inodes per block', `${found.inodesPerBlock}`);
  if (!isPowerOfTwo(sectorSize) || sectorSize < 512 || sectorSize > 32 * KiB)
    throw broken('sector size', `${sectorSize}`);
  if (found.agBlocksLog > 31 || 2 ** found.agBlocksLog < found.agBlocks || 2 ** found.agBlocksLog >= 2 * found.agBlocks)
    throw broken('group size', `${found.agBlocks} blocks, in ${found.agBlocksLog} bits`);
  if (blockSize * 2 ** folderBlockLog > 64 * KiB)
    throw broken('folder block size', `${blockSize} << ${folderBlockLog}`);
}

function checkVersion5(reader: VolumeReader, found: format.SuperBlock): void {
  const unknown = found.incompatible - (found.incompatible & format.incompatibleKnown);
  if (unknown !== 0)
    throw new UnsupportedError(`XFS: features 0x${unknown.toString(16)} are not known; it is not read`);
  if ((found.incompatible & format.incompatible.needsRepair) !== 0)
    throw new UnsupportedError('XFS: the volume says that it needs xfs_repair; it is not read');
  checkCrc(reader.read(0, found.sectorSize, 'super block'), format.superBlockCrcOffset, 'XFS super block');
}

/** @throws FormatError, IntegrityError */
export function readInode(fs: Xfs, number: number): Inode {
  const { agBlocksLog, inodesPerBlockLog, agBlocks, agCount, inodeSize } = fs.super;
  const perGroup = 2 ** (agBlocksLog + inodesPerBlockLog);
  const group = Math.floor(number / perGroup);
  const block = Math.floor((number % perGroup) / 2 ** inodesPerBlockLog);
  if (number < 1 || group >= agCount || block >= agBlocks)
    throw new FormatError('XFS inode', 'number', number, `is not in one of ${agCount} groups`);
  const offset = (group * agBlocks + block) * fs.blockBytes + (number % 2 ** inodesPerBlockLog) * inodeSize;
  const bytes = fs.reader.read(offset, inodeSize, `inode ${number}`);
  const fields = format.inode.parse(bytes);
  const view = new DataView(bytes.buffer);
  const wrong = (field: string, detail: string): FormatError =>
    new FormatError(`XFS inode ${number}`, field, offset, detail);
  if (fields.version !== (fs.version === 5 ? 3 : fields.version) || fields.version < 1 || fields.version > 3)
    throw wrong('version', `${fields.version}`);
  const isNew = fields.version === 3;
  if (isNew) {
    checkCrc(bytes, format.inodeCrcOffset, `XFS inode ${number}`);
    if (view.getBigUint64(format.inodeNumberOffset) !== BigInt(number))
      throw wrong('number', 'is that of another inode');
  }
  const flags2 = isNew ? Number(view.getBigUint64(format.inodeFlags2Offset) % 2n ** 32n) : 0;
  const many = (flags2 & format.inodeFlags2.manyExtents) !== 0;
  const start = isNew ? format.inodeBytes.version3 : format.inodeBytes.version2;
  const end = fields.forkOffset === 0 ? inodeSize : start + fields.forkOffset * 8;
  if (end > inodeSize) throw wrong('fork offset', `${fields.forkOffset}`);
  const where = { structure: `XFS inode ${number}`, offset };
  return {
    ...fields,
    number,
    links: fields.version === 1 ? fields.linksVersion1 : fields.links,
    sizeBytes: toOffset(fields.sizeBytes, Number.MAX_SAFE_INTEGER, { ...where, field: 'size' }),
    extentCount: many ? toOffset(fields.manyExtents, 2 ** 48, { ...where, field: 'extents' }) : fields.extents,
    reflinked: (flags2 & format.inodeFlags2.reflink) !== 0,
    bigTime: (flags2 & format.inodeFlags2.bigTime) !== 0,
    born: isNew ? view.getBigUint64(format.inodeBornOffset) : undefined,
    fork: bytes.subarray(start, end),
  };
}

/** @throws IntegrityError */
export function checkCrc(bytes: Uint8Array, fieldOffset: number, what: string): void {
  const stored = new DataView(bytes.buffer, bytes.byteOffset).getUint32(fieldOffset, true);
  const actual = crc32cWithoutField(bytes, fieldOffset);
  if (stored !== actual) throw new IntegrityError(what, stored, actual);
}

function broken(field: string, detail: string): FormatError {
  return new FormatError('XFS super block', field, 0, detail);
}
