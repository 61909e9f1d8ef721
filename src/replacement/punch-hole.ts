/** fallocate(2) through koffi: makes a range of a file a hole, which reads as zeros and costs no room. */
import koffi from 'koffi';
import { UnavailableError } from '../base/errors.ts';

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

const fallocate = koffi.load(null).func('int fallocate(int fd, int mode, int64_t offset, int64_t length)') as (
  fd: number,
  mode: number,
  offset: number,
  length: number,
) => number;

/** @throws UnavailableError when the file system cannot; the range is then as it was */
export function punchHole(fd: number, offset: number, lengthBytes: number, name: string): void {
  if (fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, lengthBytes) !== 0) {
    throw new UnavailableError(`${name}: cannot make a hole at byte ${offset} (errno ${koffi.errno()})`);
  }
}
