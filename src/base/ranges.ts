/** Arithmetic on byte ranges. No bit shifts: sizes pass 2^32 here. */
import { FormatError } from './errors.ts';

export function alignDown(value: number, alignment: number): number {
  return value - (value % alignment);
}

export function alignUp(value: number, alignment: number): number {
  return alignDown(value + alignment - 1, alignment);
}

export function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}

/**
 * Narrows a 64-bit number from a disk to a safe integer, at most `limit`.
 * @throws FormatError naming the field when it is larger.
 */
export function toOffset(
  value: bigint,
  limit: number,
  where: { structure: string; field: string; offset: number },
): number {
  if (value > BigInt(limit) || value < 0n) {
    throw new FormatError(where.structure, where.field, where.offset, `${value} is more than the limit of ${limit}`);
  }
  return Number(value);
}
