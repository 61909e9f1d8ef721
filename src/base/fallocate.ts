/** fallocate(2) through koffi. */
import koffi from 'koffi';

const call = koffi.load(null).func('int fallocate(int fd, int mode, int64_t offset, int64_t length)') as (
  fd: number,
  mode: number,
  offset: number,
  length: number,
) => number;

/** Whether the range becomes a hole, which reads as zeros and costs no room, or has room made for it. */
export const fallocateMode = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;

/** @returns 0, or the error's number: the range is as it was then */
export function fallocate(fd: number, mode: number, offset: number, lengthBytes: number): number {
  return call(fd, mode, offset, lengthBytes) === 0 ? 0 : koffi.errno();
}
