/**
 * The GUID partition table, both copies (UEFI specification 5.3):
 *
 *     LBA 1        header
 *     LBA 2..33    128 entries of 128 bytes
 *     last 32..1   the entries again
 *     last         the header again, with the places of both exchanged
 */
import { crc32 } from 'node:zlib';
import { gptEntry, gptHeader, sectorBytes } from '../volume/table-layout.ts';
import { partitionTypes, type BootableGeometry, type Partition } from './geometry.ts';

const entryCount = 128;
const entryBytes = gptEntry.sizeBytes;
const headerBytes = gptHeader.sizeBytes;
const entriesLba = 2;
const entriesSectors = (entryCount * entryBytes) / sectorBytes;
const revision = 0x0001_0000;
/** Bit 2 of the attributes: "legacy BIOS bootable". */
const activeAttribute = 4n;

/** Before the first partition: the MBR, the header and the entries. */
export const gptHeadBytes = (entriesLba + entriesSectors) * sectorBytes;
/** After the last partition: the entries and the header. */
export const gptTailBytes = (entriesSectors + 1) * sectorBytes;

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
    const sector = new Uint8Array(sectorBytes);
    gptHeader.encode({ ...fields, headerCrc32: crc32(gptHeader.encode(fields)) }, sector, 0);
    return sector;
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
    (_, index) => gptEntry.parse(head, entriesLba * sectorBytes + index * entryBytes).type,
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
    gptEntry.encode(value, encoded, index * entryBytes);
  }
  return encoded;
}
