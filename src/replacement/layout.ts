/**
 * The map of a replacement disk file, on disk. It says for each unit of 64 KiB whether the replacement has it (present) and whether the
 * guest changed it (written).
 *
 *   0        header A   4 KiB  \ two equal copies, A flushed before B is written: of those with a right checksum, the one with
 *   4 KiB    header B   4 KiB  / the higher sequence counts
 *   8 KiB    page 0, live      4 KiB: 2 bits for each of 16,384 units (1 GiB of the file)
 *   12 KiB   page 0, durable   the same bits, as of the last flush
 *   16 KiB   page 1, live
 *   ...
 *
 * Why twice: a killed process must lose nothing that was acknowledged, so the live bits are written with every first write of a unit; but
 * when power fails, the system may have written them before the data they speak of. So each flush writes the durable bits after the data is
 * on disk, and after a power loss, which the boot's identity shows, or a flush that failed, only they count.
 */
import { KiB, MiB, TiB } from '../base/units.ts';
import { ascii, bytes, guid, layout, reserved, text, u16le, u32le, u64le, u8, type Decoded } from '../bytes/layout.ts';

export const unitBytes = 64 * KiB;
export const mapHeaderBytes = 4 * KiB;
export const mapPageBytes = 4 * KiB;
export const unitsPerPage = (mapPageBytes * 8) / 2;
export const firstPageOffset = 2 * mapHeaderBytes;
/** Of a plain data file, and of a sealed one: who knows only plain ones must not take it for one (2: ended otherwise, in builds before this one). */
export const mapVersions = { plain: 1, sealed: 3 } as const;
export const keyCheckBytes = 16;
/** A file may grow to twice its size and this, as growing formats do when a guest fills its disk. */
export const growthRoomBytes = 64 * MiB;
export const maxFileBytes = 128 * TiB;

export const presentBit = 1;
export const writtenBit = 2;

export const mapMagic = 'VENEERMP';

/** What the header's `state` counts from; states.ts has the ways between them. */
export const replacementStates = ['intercepting', 'filling', 'paused', 'complete', 'final', 'failed'] as const;
export type ReplacementState = (typeof replacementStates)[number];

export const mapHeader = layout('replacement map header', mapHeaderBytes, {
  magic: ascii(0, mapMagic),
  version: u16le(8),
  state: u8(10), //            index into replacementStates
  cutting: u8(11), //          1 while the data file may still be longer than visibleBytes, to which it is being cut
  unitBytes: u32le(12),
  pluginId: guid(16), //       the plugin file that it belongs to
  bootId: guid(32), //         the boot in which the live bits were written; nil when a flush failed, after which they are not to be trusted
  sequence: u64le(48),
  baseBytes: u64le(56), //     size of the synthesized file
  visibleBytes: u64le(64), //  below this, units that are not present read as synthesized; above, as zeros: a shrunk file stays shrunk
  fileName: text(72, 256, 'utf8'), // of the native file
  direct: u8(328), //          1 once a guest may have written past the map: every unit counts as written then
  suspect: u8(329), //         1 after a power loss: unwritten units may hold writes that no flush had covered
  sealed: u8(330), //          1 when the data file is sealed (sealed-file.ts); the fields below are zero else
  reserved1: reserved(331, 5),
  sealId: guid(336), //        of this very copy: its key is derived for the plugin file and for this
  keyCheck: bytes(352, keyCheckBytes), // derived with its key: another key is told at once
  cutBytes: u64le(368), //     while cutting: the length to which a sealed data file is being cut
  reserved2: reserved(376, 3716),
  crc32c: u32le(4092),
});
export type MapHeader = Decoded<typeof mapHeader>;

/** Offset of the live bits of a page; its durable bits follow at once. */
export function livePageOffset(page: number): number {
  return firstPageOffset + page * 2 * mapPageBytes;
}
