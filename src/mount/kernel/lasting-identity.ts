/** What a file is known by when nobody holds it: a later file that gets its inode number has another. */
import type * as fs from '../../base/fs.ts';
import { fileHandleOf } from '../../base/system-calls.ts';
import type { Stamp } from './node-table.ts';

/**
 * From the handle that its file system gives out, which has the inode's own generation; where there is none, from the time when it was
 * made, or was last changed: then a file that was changed meanwhile is taken for another.
 * @param stat of it, taken now
 */
export function lastingIdentity(fd: number, stat: fs.BigIntStats): Stamp {
  const bytes = fileHandleOf(fd) ?? timeOf(stat);
  let [low, high] = [0x811c9dc5 | 0, 0x9747b28c | 0]; // FNV-1a twice, from two starts
  for (const byte of bytes) {
    low = Math.imul(low ^ byte, 0x01000193);
    high = Math.imul(high ^ byte ^ (low >>> 24), 0x01000193);
  }
  return [low, high];
}

function timeOf({ birthtimeNs, ctimeNs }: fs.BigIntStats): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(8));
  bytes.setBigInt64(0, birthtimeNs > 0n ? birthtimeNs : ctimeNs);
  return new Uint8Array(bytes.buffer);
}
