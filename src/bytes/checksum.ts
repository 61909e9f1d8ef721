/** Checksums that are stored inside the structures they cover. */
import { crc32 as nativeCrc32, crc32c as nativeCrc32c } from '@node-rs/crc32';
import { IntegrityError } from '../base/errors.ts';

/** CRC-32C (Castagnoli) of the bytes; `initial` continues an earlier one. */
export function crc32c(bytes: Uint8Array, initial = 0): number {
  return nativeCrc32c(bytes, initial);
}

/** CRC-32 as GPT and zip have it; `initial` continues an earlier one. */
export function crc32(bytes: Uint8Array, initial = 0): number {
  return nativeCrc32(bytes, initial);
}

/** CRC-32C of a structure with its own checksum field taken as zero. */
export function crc32cWithoutField(bytes: Uint8Array, fieldOffset: number): number {
  const head = crc32c(bytes.subarray(0, fieldOffset));
  return crc32c(bytes.subarray(fieldOffset + 4), crc32c(new Uint8Array(4), head));
}

/** Writes the CRC-32C of the structure into its own little-endian field. */
export function sealCrc32c(bytes: Uint8Array, fieldOffset: number): Uint8Array {
  const checksum = crc32cWithoutField(bytes, fieldOffset);
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).setUint32(fieldOffset, checksum, true);
  return bytes;
}

/** @throws IntegrityError naming `what` when the stored field does not match the bytes. */
export function checkCrc32c(bytes: Uint8Array, fieldOffset: number, what: string): void {
  const stored = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(fieldOffset, true);
  const actual = crc32cWithoutField(bytes, fieldOffset);
  if (stored !== actual) throw new IntegrityError(what, stored, actual);
}
