/**
 * The protection of file records and index blocks: the last two bytes of every 512 on disk hold a number, the update sequence number;
 * what belongs there stands in an array in the header. A structure that was not written whole shows it.
 */
import { FormatError } from '../../base/errors.ts';
import { viewOf } from '../../bytes/view.ts';
import { strideBytes } from './layout.ts';

/** The structure as it is meant: a copy with its bytes in place. @throws FormatError when it was not written whole */
export function withoutFixups(raw: Uint8Array, structure: string, at: number): Uint8Array {
  const { offset, count } = arrayOf(raw, structure, at);
  const whole = new Uint8Array(raw);
  const view = viewOf(whole);
  const number = view.getUint16(offset, true);
  for (let index = 1; index < count; index++) {
    const end = index * strideBytes - 2;
    if (view.getUint16(end, true) !== number)
      throw new FormatError(structure, 'update sequence', at + end, 'is not that of the header: not written whole');
    view.setUint16(end, view.getUint16(offset + index * 2, true), true);
  }
  return whole;
}

/** The inverse: as it stands on disk, with the same update sequence number. */
export function withFixups(whole: Uint8Array, structure: string, at: number): Uint8Array {
  const { offset, count } = arrayOf(whole, structure, at);
  const raw = new Uint8Array(whole);
  const view = viewOf(raw);
  const number = view.getUint16(offset, true);
  for (let index = 1; index < count; index++) {
    const end = index * strideBytes - 2;
    view.setUint16(offset + index * 2, view.getUint16(end, true), true);
    view.setUint16(end, number, true);
  }
  return raw;
}

function arrayOf(bytes: Uint8Array, structure: string, at: number): { offset: number; count: number } {
  const view = viewOf(bytes);
  const offset = view.getUint16(4, true);
  const count = view.getUint16(6, true);
  const sound =
    offset % 2 === 0 &&
    offset >= 8 &&
    count === bytes.length / strideBytes + 1 &&
    offset + count * 2 <= strideBytes - 2;
  if (!sound)
    throw new FormatError(
      structure,
      'update sequence',
      at + 4,
      `${count} numbers at ${offset} for ${bytes.length} bytes`,
    );
  return { offset, count };
}
