/**
 * The GUID partition table, both copies (UEFI specification 5.3):
 *
 *     LBA 1        header
 *     LBA 2..33    128 entries of 128 bytes
 *     last 32..1   the entries again
 *     last         the header again, with the places of both exchanged
 */
import { crc32 } from 'node:zlib';
import { ascii, guid, layout, reserved, text, u32le, u64le } from '../bytes/layout.ts';
import { partitionTypes, sectorBytes, type BootableGeometry, type Partition } from './geometry.ts';

const entryCount = 128;
const entryBytes = 128;
const headerBytes = 92;
const entriesLba = 2;
const entriesSectors = (entryCount * entryBytes) / sectorBytes;
const revision = 0x0001_0000;
/** Bit 2 of the attributes: "legacy BIOS bootable". */
const activeAttribute = 4n;

/** Before the first partition: the MBR, the header and the entries. */
export const gptHeadBytes = (entriesLba + entriesSectors) * sectorBytes;
/** After the last partition: the entries and the header. */
export const gptTailBytes = (entriesSectors + 1) * sectorBytes;

/** 5.3.2 */
const header = layout('GPT header', sectorBytes, {
  signature: ascii(0, 'EFI PART'),
  revision: u32le(8),
  headerBytes: u32le(12),
  headerCrc32: u32le(16), // of the 92 bytes, this field as zero
  reserved1: reserved(20, 4),
  ownLba: u64le(24),
  otherLba: u64le(32),
  firstUsableLba: u64le(40),
  lastUsableLba: u64le(48),
  diskGuid: guid(56),
  entriesLba: u64le(72),
  entryCount: u32le(80),
  entryBytes: u32le(84),
  entriesCrc32: u32le(88),
  reserved2: reserved(92, 420),
});

/** 5.3.3 */
const entry = layout('GPT partition', entryBytes, {
  type: guid(0),
  guid: guid(16),
  firstLba: u64le(32),
  lastLba: u64le(40), // inclusive
  attributes: u64le(48),
  name: text(56, 72, 'utf16le'),
});

export interface EncodedGpt {
  /** From LBA 1. */
  readonly head: Uint8Array;
  /** To the end of the disk. */
  readonly tail: Uint8Array;
}

export function encodeGpt(geometry: BootableGeometry): EncodedGpt {
  const lastLba = geometry.sizeBytes / sectorBytes - 1;
  const entries = encodeEntries(geometry.partitions);
  const copy = (ownLba: number, otherLba: number, entriesAt: number): Uint8Array => {
    const fields = {
      revision,
      headerBytes,
      headerCrc32: 0,
      ownLba: BigInt(ownLba),
      otherLba: BigInt(otherLba),
      firstUsableLba: BigInt(gptHeadBytes / sectorBytes),
      lastUsableLba: BigInt(lastLba - entriesSectors - 1),
      diskGuid: geometry.diskGuid,
      entriesLba: BigInt(entriesAt),
      entryCount,
      entryBytes,
      entriesCrc32: crc32(entries),
    };
    return header.encode({ ...fields, headerCrc32: crc32(header.encode(fields).subarray(0, headerBytes)) });
  };
  return {
    head: Buffer.concat([copy(1, lastLba, entriesLba), entries]),
    tail: Buffer.concat([entries, copy(lastLba, 1, lastLba - entriesSectors)]),
  };
}

/**
 * Whether the first 34 sectors of a disk are those of a GPT with an EFI system partition and none for a BIOS boot loader: a disk that UEFI
 * starts. Only looked at, not checked.
 */
export function hasEfiSystemPartition(head: Uint8Array): boolean {
  if (Buffer.from(head).toString('latin1', sectorBytes, sectorBytes + 8) !== 'EFI PART') return false;
  const types = Array.from(
    { length: entryCount },
    (_, index) => entry.parse(head, entriesLba * sectorBytes + index * entryBytes).type,
  );
  return types.includes(partitionTypes['efi-system'].gpt) && !types.includes(partitionTypes['bios-boot'].gpt);
}

function encodeEntries(partitions: readonly Partition[]): Uint8Array {
  const encoded = new Uint8Array(entryCount * entryBytes);
  for (const [index, partition] of partitions.entries()) {
    const value = {
      type: partitionTypes[partition.type].gpt,
      guid: partition.guid,
      firstLba: BigInt(partition.startBytes / sectorBytes),
      lastLba: BigInt((partition.startBytes + partition.sizeBytes) / sectorBytes - 1),
      attributes: partition.active ? activeAttribute : 0n,
      name: partition.volume === undefined ? partition.type : `volume ${partition.volume}`,
    };
    entry.encode(value, encoded, index * entryBytes);
  }
  return encoded;
}
