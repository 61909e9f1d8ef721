/** lseek(2) through koffi: holes of a sparse file and the size of a block device, which Node cannot tell. */
import koffi from 'koffi';
import { UnavailableError } from '../base/errors.ts';

const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;

const call = koffi.load(null).func('int64_t lseek(int fd, int64_t offset, int whence)') as (
  fd: number,
  offset: number,
  whence: number,
) => number | bigint;

function lseek(fd: number, offset: number, whence: number, name: string): number | undefined {
  const position = Number(call(fd, offset, whence));
  if (position >= 0) return position;
  const errno = koffi.errno();
  if (errno === ENXIO) return undefined;
  throw new UnavailableError(`${name}: cannot seek from byte ${offset} (errno ${errno})`, { retryable: true });
}

/** Size in bytes of a regular file or block device. */
export function seekEnd(fd: number, name: string): number {
  return lseek(fd, 0, SEEK_END, name) ?? 0;
}

/** The first data at or after `offset`; undefined when only a hole follows. */
export function seekData(fd: number, offset: number, name: string): number | undefined {
  return lseek(fd, offset, SEEK_DATA, name);
}

/** The first hole at or after `offset`, which the end of the file counts as; undefined past the end. */
export function seekHole(fd: number, offset: number, name: string): number | undefined {
  return lseek(fd, offset, SEEK_HOLE, name);
}
