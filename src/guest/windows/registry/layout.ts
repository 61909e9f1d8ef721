/**
 * Registry hives (regf 1.3 to 1.6) as they lie on disk, and the limits that every number from one meets.
 *
 * ```
 * 0       base block, 4096 bytes (the first 512 are checksummed)
 * 4096    hive bins data: bins of n * 4096 bytes, each a header of 32 bytes and cells that tile the rest
 *         a cell: s32 size (negative: allocated, in bytes, this field included, a multiple of 8), then its contents
 * ...     the file may be longer than its bins: room to grow
 * ```
 * Offsets of cells count from the start of the hive bins data. Source: "Windows registry file format specification", M. Suhanov.
 */
import { MiB } from '../../../base/units.ts';
import { ascii, bytes, layout, reserved, u16le, u32le, u64le, type Decoded } from '../../../bytes/layout.ts';

export const binsStartBytes = 4096;
export const binAlignmentBytes = 4096;
export const cellAlignmentBytes = 8;
export const logSectorBytes = 512;
export const noCell = 0xffff_ffff;

/** Windows loads a SYSTEM hive whole at boot, from well below this. */
export const maxHiveBytes = 256 * MiB;
/** Values that a plan reads are small; the largest single cell that the registry itself writes is 1 MiB. */
export const maxValueBytes = MiB;
/** More than this of a value's data is spread over segments (regf 1.4 and later). */
export const bigDataBytes = 16_344;

export const fileTypes = { primary: 0, log: 1, logOfVista: 2, logOfEntries: 6 } as const;

export const baseBlock = layout('registry base block', 512, {
  signature: ascii(0, 'regf'),
  primarySequence: u32le(4),
  secondarySequence: u32le(8),
  lastWritten: u64le(12),
  majorVersion: u32le(20),
  minorVersion: u32le(24),
  fileType: u32le(28),
  fileFormat: u32le(32),
  rootCell: u32le(36),
  binsLength: u32le(40),
  clusteringFactor: u32le(44),
  fileName: bytes(48, 64),
  reserved: bytes(112, 396),
  checksum: u32le(508),
});
export type BaseBlock = Decoded<typeof baseBlock>;

export const binHeader = layout('registry hive bin', 32, {
  signature: ascii(0, 'hbin'),
  offset: u32le(4),
  sizeBytes: u32le(8),
  reserved: reserved(12, 8),
  timestamp: u64le(20),
  spare: reserved(28, 4),
});

export const keyNode = layout('registry key', 76, {
  signature: ascii(0, 'nk'),
  flags: u16le(2),
  lastWritten: u64le(4),
  accessBits: u32le(12),
  parent: u32le(16),
  subkeyCount: u32le(20),
  volatileSubkeyCount: u32le(24),
  subkeyList: u32le(28),
  volatileSubkeyList: u32le(32),
  valueCount: u32le(36),
  valueList: u32le(40),
  security: u32le(44),
  className: u32le(48),
  largestSubkeyName: u32le(52),
  largestSubkeyClass: u32le(56),
  largestValueName: u32le(60),
  largestValueData: u32le(64),
  workVar: u32le(68),
  nameLength: u16le(72),
  classNameLength: u16le(74),
});
export type KeyNode = Decoded<typeof keyNode>;

export const keyFlags = { compressedName: 0x20 } as const;

export const keyValue = layout('registry value', 20, {
  signature: ascii(0, 'vk'),
  nameLength: u16le(2),
  dataLength: u32le(4),
  data: u32le(8),
  type: u32le(12),
  flags: u16le(16),
  spare: u16le(18),
});
export type KeyValue = Decoded<typeof keyValue>;

export const valueFlags = { compressedName: 1 } as const;
/** Set in a value's length when its data, at most 4 bytes, stands where the offset of the data would. */
export const inlineData = 0x8000_0000;

export const bigData = layout('registry big data', 8, {
  signature: ascii(0, 'db'),
  segmentCount: u16le(2),
  segmentList: u32le(4),
});

export const logEntry = layout('registry log entry', 40, {
  signature: ascii(0, 'HvLE'),
  sizeBytes: u32le(4),
  flags: u32le(8),
  sequence: u32le(12),
  binsLength: u32le(16),
  pageCount: u32le(20),
  hashOfPages: u64le(24),
  hashOfHeader: u64le(32),
});

export const valueTypes = { none: 0, text: 1, expandText: 2, binary: 3, dword: 4, multiText: 7 } as const;

/** Exclusive or of the first 508 bytes; the two values that mean something else are moved by one. */
export function checksumOf(base: Uint8Array): number {
  const view = new DataView(base.buffer, base.byteOffset, base.byteLength);
  let sum = 0;
  for (let at = 0; at < 508; at += 4) sum ^= view.getUint32(at, true);
  sum >>>= 0;
  if (sum === 0) return 1;
  return sum === 0xffff_ffff ? 0xffff_fffe : sum;
}
