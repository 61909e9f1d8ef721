/** Binary search: one for all that is kept in order. */

/**
 * The first index from 0 to `count` of which `holds` is true.
 * @param holds false up to some index, and true from there on
 * @returns `count` where it is true of none
 */
export function firstIndex(count: number, holds: (index: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
