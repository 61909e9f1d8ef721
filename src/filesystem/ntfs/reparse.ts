/** Reparse points: files that stand for something else. */
import { FormatError } from '../../base/errors.ts';
import { layout, reserved, u16le, u32le } from '../../bytes/layout.ts';
import { viewOf } from '../../bytes/view.ts';
import { attributeTypes } from './layout.ts';
import type { Records } from './records.ts';

/** Of [MS-FSCC] 2.1.2.1. */
export const reparseTags = {
  mountPoint: 0xa000_0003,
  symbolicLink: 0xa000_000c,
  /** A file that Windows keeps compressed in a second stream. */
  compact: 0x8000_0017,
} as const;

/** [MS-FSCC] 2.1.2.4 and 2.1.2.5: a symbolic link has flags behind it, then come the names. */
const linkHead = layout('NTFS link', 16, {
  tag: u32le(0),
  lengthBytes: u16le(4),
  unused: reserved(6, 2),
  targetOffset: u16le(8),
  targetBytes: u16le(10),
  shownOffset: u16le(12),
  shownBytes: u16le(14),
});
const linkFlagsBytes = 4;

/** Undefined where the file stands for itself. */
export function reparseTagOf(records: Records, number: number): number | undefined {
  const value = valueOf(records, number);
  return value === undefined || value.length < 4 ? undefined : viewOf(value).getUint32(0, true);
}

/** What Windows shows of a link, or where it leads when nothing is shown. @throws FormatError where it is no link */
export function linkTarget(records: Records, number: number): string {
  const value = valueOf(records, number) ?? new Uint8Array(0);
  const structure = `NTFS link ${number}`;
  const { tag, targetOffset, targetBytes, shownOffset, shownBytes } = linkHead.parse(value);
  if (tag !== reparseTags.mountPoint && tag !== reparseTags.symbolicLink)
    throw new FormatError(structure, 'tag', 0, `0x${tag.toString(16)} is that of no link`);
  const names = linkHead.sizeBytes + (tag === reparseTags.symbolicLink ? linkFlagsBytes : 0);
  const [offset, lengthBytes] = shownBytes > 0 ? [shownOffset, shownBytes] : [targetOffset, targetBytes];
  const end = names + offset + lengthBytes;
  if (end > value.length) throw new FormatError(structure, 'name', names, `ends at ${end} of ${value.length} bytes`);
  return Buffer.from(value.subarray(names + offset, end)).toString('utf16le');
}

function valueOf(records: Records, number: number): Uint8Array | undefined {
  return records.attribute(number, attributeTypes.reparsePoint, '')?.value;
}
