/** The super block, the group descriptors and the inodes: checked, with their checksums where the file system keeps them. */
import { FormatError, IntegrityError, UnsupportedError } from '../../base/errors.ts';
import { KiB } from '../../base/units.ts';
import { crc32c } from '../../bytes/checksum.ts';
import type { VolumeReader } from '../volume-reader.ts';
import * as format from './layout.ts';

export interface Ext4 {
  readonly reader: VolumeReader;
  readonly super: format.SuperBlock;
  readonly blockBytes: number;
  readonly blockCount: number;
  readonly inodeBytes: number;
  readonly descriptorBytes: number;
  /** What every checksum of metadata starts from; undefined where there are none. */
  readonly checksumSeed: number | undefined;
}

export interface Inode extends format.InodeFields {
  readonly number: number;
  readonly sizeBytes: number;
  /** All of it, with what lies behind the first 128 bytes. */
  readonly bytes: Uint8Array;
}

const maxInodeBytes = 64 * KiB;
const maxDescriptorBytes = 1024;
/** ext4 checksums are CRC-32C without the final inversion. */
const raw = (standard: number): number => (standard ^ 0xffffffff) >>> 0;

/** @returns undefined where there is no super block of this family */
export function readSuperBlock(reader: VolumeReader): Ext4 | undefined {
  if (reader.sizeBytes < 2 * KiB) return undefined;
  const bytes = reader.read(format.superBlockOffset, format.superBlock.sizeBytes, 'super block');
  const found = format.superBlock.parse(bytes);
  if (found.magic !== format.superBlockMagic) return undefined;
  if (found.logBlockSize > 6) throw broken('block size', `1024 << ${found.logBlockSize}`);
  const features = found.revision === 0 ? 0 : found.featureIncompatible;
  checkFeatures(features);
  const metadataChecksums = found.revision > 0 && (found.featureReadOnly & format.readOnly.metadataChecksums) !== 0;
  if (metadataChecksums) {
    const actual = raw(crc32c(bytes.subarray(0, 0x3fc)));
    if (actual !== found.checksum) throw new IntegrityError('ext4 super block', found.checksum, actual);
  }
  const is64 = (features & format.incompatible.bits64) !== 0;
  const blockBytes = KiB * 2 ** found.logBlockSize;
  const blockCount = found.blocksCountLow + (is64 ? found.blocksCountHigh * 2 ** 32 : 0);
  const inodeBytes = found.revision === 0 ? 128 : found.inodeSize;
  const descriptorBytes = is64 ? found.descriptorSize : 32;
  if (blockCount * blockBytes > reader.sizeBytes)
    throw broken(
      'blocks count',
      `${blockCount} blocks of ${blockBytes} bytes; the volume has ${reader.sizeBytes} bytes`,
    );
  if (inodeBytes < 128 || inodeBytes > Math.min(blockBytes, maxInodeBytes) || blockBytes % inodeBytes !== 0)
    throw broken('inode size', `${inodeBytes}`);
  if (descriptorBytes < 32 || descriptorBytes > maxDescriptorBytes || blockBytes % descriptorBytes !== 0)
    throw broken('descriptor size', `${descriptorBytes}`);
  if (found.blocksPerGroup === 0 || found.blocksPerGroup > blockBytes * 8 || found.inodesPerGroup === 0)
    throw broken('group size', `${found.blocksPerGroup} blocks, ${found.inodesPerGroup} inodes`);
  const givenSeed = (features & format.incompatible.checksumSeed) !== 0;
  const ownSeed = raw(crc32c(bytes.subarray(0x68, 0x78)));
  const checksumSeed = metadataChecksums ? (givenSeed ? found.checksumSeed : ownSeed) : undefined;
  return {
    reader,
    super: { ...found, featureIncompatible: features },
    blockBytes,
    blockCount,
    inodeBytes,
    descriptorBytes,
    checksumSeed,
  };
}

function checkFeatures(features: number): void {
  if ((features & format.incompatible.journalDevice) !== 0)
    throw new UnsupportedError('ext4: the volume is the journal of another file system');
  const unknown = features - (features & format.incompatibleKnown);
  if (unknown !== 0)
    throw new UnsupportedError(`ext4: features 0x${unknown.toString(16)} are not known; it is not read`);
}

/** @throws FormatError, IntegrityError */
export function readInode(fs: Ext4, number: number): Inode {
  if (number < 1 || number > fs.super.inodesCount)
    throw broken('inode number', `${number}, where there are ${fs.super.inodesCount}`);
  const group = Math.floor((number - 1) / fs.super.inodesPerGroup);
  const offset = inodeTableOf(fs, group) + ((number - 1) % fs.super.inodesPerGroup) * fs.inodeBytes;
  const bytes = fs.reader.read(offset, fs.inodeBytes, `inode ${number}`);
  const fields = format.inode.parse(bytes);
  if (fs.checksumSeed !== undefined) checkInode(fs.checksumSeed, number, fields, bytes);
  return { ...fields, number, bytes, sizeBytes: fields.sizeLow + fields.sizeHigh * 2 ** 32 };
}

/** Where the group's inode table starts, in bytes. */
function inodeTableOf(fs: Ext4, group: number): number {
  const perBlock = fs.blockBytes / fs.descriptorBytes;
  const index = Math.floor(group / perBlock);
  const block = descriptorBlock(fs, index);
  const at = block * fs.blockBytes + (group % perBlock) * fs.descriptorBytes;
  const bytes = fs.reader.read(at, fs.descriptorBytes, `descriptor of group ${group}`);
  const view = new DataView(bytes.buffer);
  const high = fs.descriptorBytes >= 64 ? view.getUint32(0x28, true) : 0;
  const table = view.getUint32(0x8, true) + high * 2 ** 32;
  if (table === 0 || table >= fs.blockCount)
    throw new FormatError(`ext4 descriptor of group ${group}`, 'inode table', at, `block ${table} of ${fs.blockCount}`);
  return table * fs.blockBytes;
}

/** Descriptors lie together behind the super block, or, with meta_bg, block by block in the groups that they describe. */
function descriptorBlock(fs: Ext4, index: number): number {
  const { firstDataBlock, featureIncompatible, featureReadOnly, firstMetaGroup, blocksPerGroup } = fs.super;
  const meta = (featureIncompatible & format.incompatible.metaGroups) !== 0 && index >= firstMetaGroup;
  if (!meta) return firstDataBlock + 1 + index;
  const group = index * (fs.blockBytes / fs.descriptorBytes);
  const sparse = (featureReadOnly & format.readOnly.sparseSuper) !== 0;
  const hasSuper = group === 0 || !sparse || group === 1 || [3, 5, 7].some((base) => isPowerOf(group, base));
  return firstDataBlock + group * blocksPerGroup + (hasSuper ? 1 : 0);
}

function isPowerOf(value: number, base: number): boolean {
  let power = base;
  while (power < value) power *= base;
  return power === value;
}

function checkInode(seed: number, number: number, fields: format.InodeFields, bytes: Uint8Array): void {
  const words = new Uint8Array(8);
  new DataView(words.buffer).setUint32(0, number, true);
  new DataView(words.buffer).setUint32(4, fields.generation, true);
  const view = new DataView(bytes.buffer);
  const extra = bytes.length > 128 ? view.getUint16(format.extraSizeOffset, true) : 0;
  const covered = bytes.slice();
  covered.fill(0, format.checksumLowOffset, format.checksumLowOffset + 2);
  if (extra >= 4) covered.fill(0, format.checksumHighOffset, format.checksumHighOffset + 2);
  const actual = raw(crc32c(covered, crc32c(words, raw(seed))));
  const high = extra >= 4 ? view.getUint16(format.checksumHighOffset, true) : undefined;
  const stored = fields.checksumLow + (high ?? 0) * 2 ** 16;
  const compared = high === undefined ? actual % 2 ** 16 : actual;
  if (stored !== compared) throw new IntegrityError(`ext4 inode ${number}`, stored, compared);
}

function broken(field: string, detail: string): FormatError {
  return new FormatError('ext4 super block', field, format.superBlockOffset, detail);
}
