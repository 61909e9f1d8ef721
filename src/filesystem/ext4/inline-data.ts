/** Data that lie in the inode itself: the first 60 bytes where the block map would be, the rest in an attribute behind the inode's fields. */
import { FormatError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { Inode } from './inodes.ts';
import * as format from './layout.ts';

const maxAttributes = 256;
const maxInlineFileBytes = 64 * MiB;

/** The parts as they are stored: a folder's entries do not cross from one to the other. */
export function inlineParts(inode: Inode): readonly [Uint8Array, Uint8Array] {
  return [inode.block, inlineAttribute(inode)];
}

/** A file's bytes. What it has beyond the data that are stored reads as zeros, as in the kernel: mke2fs makes files of zeros so. */
export function inlineBytes(inode: Inode): Uint8Array {
  if (inode.sizeBytes > maxInlineFileBytes)
    throw new FormatError(`ext4 inode ${inode.number}`, 'size', 0, `${inode.sizeBytes} bytes, for data in the inode`);
  const whole = new Uint8Array(inode.sizeBytes);
  whole.set(Buffer.concat(inlineParts(inode)).subarray(0, whole.length));
  return whole;
}

function inlineAttribute({ bytes, number }: Inode): Uint8Array {
  const none = new Uint8Array(0);
  if (bytes.length <= 132) return none;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magicAt = 128 + view.getUint16(format.extraSizeOffset, true);
  if (magicAt + 4 > bytes.length || view.getUint32(magicAt, true) !== format.attributeMagic) return none;
  const first = magicAt + 4;
  let at = first;
  for (let count = 0; count < maxAttributes && at + 4 <= bytes.length && view.getUint32(at, true) !== 0; count++) {
    const entry = format.attributeEntry.parse(bytes, at);
    const nameAt = at + format.attributeEntry.sizeBytes;
    const name = Buffer.from(bytes.subarray(nameAt, nameAt + entry.nameLength)).toString('latin1');
    if (entry.nameIndex === format.inlineDataName.index && name === format.inlineDataName.name) {
      const start = first + entry.valueOffset;
      if (entry.valueInode !== 0 || start + entry.valueSize > bytes.length)
        throw new FormatError(
          `ext4 inode ${number}`,
          'inline data',
          start,
          `${entry.valueSize} bytes are not inside it`,
        );
      return bytes.subarray(start, start + entry.valueSize);
    }
    at = nameAt + entry.nameLength + ((4 - (entry.nameLength % 4)) % 4);
  }
  return none;
}
