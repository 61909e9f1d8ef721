/**
 * The binary layouts of partition tables, for those that read them and those that write them: the master boot record (UEFI specification 5.2)
 * and the GUID partition table (5.3). Sectors have 512 bytes.
 */
import { ascii, bytes, guid, layout, reserved, text, u16le, u32le, u64le, u8 } from '../bytes/layout.ts';

export const sectorBytes = 512;

/** Of the master boot record, before all else. */
export const bootCodeBytes = 440;
export const bootSignature = 0xaa55;
export const mbrEntryCount = 4;
export const activeFlag = 0x80;
/** Of the one partition that an MBR has in front of a GPT. */
export const protectiveType = 0xee;

export const mbrEntry = layout('MBR partition', 16, {
  flag: u8(0),
  firstChs: bytes(1, 3),
  type: u8(4),
  lastChs: bytes(5, 3),
  firstLba: u32le(8),
  sectorCount: u32le(12),
});

export const masterBootRecord = layout('master boot record', sectorBytes, {
  bootCode: bytes(0, bootCodeBytes),
  diskSignature: u32le(440),
  reserved: reserved(444, 2),
  entries: bytes(446, mbrEntryCount * mbrEntry.sizeBytes),
  signature: u16le(510),
});

/** 5.3.2; its sector ends in zeros. */
export const gptHeader = layout('GPT header', 92, {
  signature: ascii(0, 'EFI PART'),
  revision: u32le(8),
  headerBytes: u32le(12),
  headerCrc32: u32le(16), // of the header's bytes, this field as zero
  reserved: reserved(20, 4),
  ownLba: u64le(24),
  otherLba: u64le(32),
  firstUsableLba: u64le(40),
  lastUsableLba: u64le(48),
  diskGuid: guid(56),
  entriesLba: u64le(72),
  entryCount: u32le(80),
  entryBytes: u32le(84),
  entriesCrc32: u32le(88),
});

/** 5.3.3 */
export const gptEntry = layout('GPT partition', 128, {
  type: guid(0),
  guid: guid(16),
  firstLba: u64le(32),
  lastLba: u64le(40), // inclusive
  attributes: u64le(48),
  name: text(56, 72, 'utf16le'),
});
