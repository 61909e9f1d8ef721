/**
 * A file record that nobody has, taken from the MFT's own bitmap. The MFT does not grow for it: Windows keeps free records ready, dozens
 * at a time.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { clearRuns, withBitsSet, type ReadBits } from './bitmap.ts';
import { attributeTypes, fileRecord, recordFlags, recordNumbers, strideBytes } from './layout.ts';
import type { NtfsWriter } from './writer.ts';

/** Free records that turn out to be no records. */
const maxTried = 256;
/** Of an MFT that is looked at for one file. */
const maxSearchedRecords = 64_000_000;

export interface FreeRecord {
  readonly number: number;
  /** Of whoever has the record next: it was raised when the last one gave it back. */
  readonly sequence: number;
  /** An empty record, as it is meant: a header, and no attributes. */
  readonly whole: Uint8Array;
}

/** @throws UnsupportedError when there is none */
export function takeRecord(writer: NtfsWriter): FreeRecord {
  const data = writer.need(recordNumbers.mft, attributeTypes.data, '');
  const bitmap = writer.need(recordNumbers.mft, attributeTypes.bitmap, '');
  if (bitmap.value !== undefined)
    throw new UnsupportedError('NTFS $MFT: its bitmap lies in its record, and is not changed');
  const read: ReadBits = (target, offset) => writer.readAttribute(bitmap, target, offset);
  const count = Math.min(
    Math.floor(Math.min(data.sizeBytes, data.initializedBytes) / writer.geometry.recordBytes),
    Math.min(bitmap.sizeBytes, bitmap.initializedBytes) * 8,
    maxSearchedRecords,
  );
  let tried = 0;
  for (const run of clearRuns(read, recordNumbers.firstOfUsers, count)) {
    for (let number = run.first; number < run.first + run.count && tried < maxTried; number++) {
      tried++;
      const found = freeRecordAt(writer, number);
      if (found === undefined) continue;
      const { offset, bytes } = withBitsSet(read, { first: number, count: 1 });
      writer.writeRuns(bitmap, bytes, offset);
      return found;
    }
    if (tried >= maxTried) break;
  }
  throw new UnsupportedError(
    'NTFS $MFT: has no free file record, and is not made longer; start the guest once on its old hardware, delete a file there and shut it down',
  );
}

/** Undefined where there is no record that was written whole, or one in use. */
function freeRecordAt(writer: NtfsWriter, number: number): FreeRecord | undefined {
  try {
    const old = writer.records.whole(number);
    const head = fileRecord.parse(old);
    if ((head.flags & recordFlags.inUse) !== 0) return undefined;
    const sequence = Math.max(1, head.sequence);
    return { number, sequence, whole: emptyRecord(old, number, sequence) };
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

function emptyRecord(old: Uint8Array, number: number, sequence: number): Uint8Array {
  const { fixupOffset, fixupCount, logSequence } = fileRecord.parse(old);
  const attributesOffset = fixupOffset + fixupCount * 2 + ((8 - ((fixupOffset + fixupCount * 2) % 8)) % 8);
  if (fixupOffset < fileRecord.sizeBytes || attributesOffset >= strideBytes - 2)
    throw new FormatError(`NTFS file record ${number}`, 'fixupOffset', 4, `${fixupOffset} is none of NTFS 3.1`);
  const whole = new Uint8Array(old.length);
  fileRecord.encode(
    {
      fixupOffset,
      fixupCount,
      logSequence,
      sequence,
      linkCount: 1,
      attributesOffset,
      flags: recordFlags.inUse,
      usedBytes: attributesOffset + 8,
      allocatedBytes: whole.length,
      base: 0n,
      nextAttribute: 0,
      unused: 0,
      number,
    },
    whole,
  );
  // The update sequence number stays what it was.
  whole.set(old.subarray(fixupOffset, fixupOffset + 2), fixupOffset);
  new DataView(whole.buffer).setUint32(attributesOffset, attributeTypes.end, true);
  return whole;
}
