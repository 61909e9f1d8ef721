/** Tables of a native file that are never kept: any range of their entries is made when it is read. */
import { alignDown, alignUp } from '../base/ranges.ts';
import type { Segment } from './segment-map.ts';

/** Writes entries [firstEntry, firstEntry + entryCount) to the view, which holds exactly these and starts as zeros. */
export type FillEntries = (view: DataView, firstEntry: number, entryCount: number) => void;

/** A table as a segment; reads that begin or end inside an entry are served too. */
export function computedTable(lengthBytes: number, entryBytes: number, fillEntries: FillEntries): Segment {
  const fillAligned = (target: Uint8Array, offset: number): void => {
    target.fill(0);
    const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
    fillEntries(view, offset / entryBytes, target.length / entryBytes);
  };
  return {
    kind: 'computed',
    lengthBytes,
    fill(target, offset) {
      const start = alignDown(offset, entryBytes);
      const end = alignUp(offset + target.length, entryBytes);
      if (start === offset && end === offset + target.length) {
        fillAligned(target, offset);
        return;
      }
      const whole = new Uint8Array(end - start);
      fillAligned(whole, start);
      target.set(whole.subarray(offset - start, offset - start + target.length));
    },
  };
}
