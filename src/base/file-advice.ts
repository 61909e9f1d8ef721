/**
 * posix_fadvise(2) and sync_file_range(2) through koffi: what the system should fetch or write ahead, and what it need not keep. Advice only:
 * where it fails, nothing is lost.
 */
import koffi from 'koffi';

const POSIX_FADV_WILLNEED = 3;
const POSIX_FADV_DONTNEED = 4;
const SYNC_FILE_RANGE_WRITE = 2;

const advise = koffi.load(null).func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)') as (
  fd: number,
  offset: number,
  lengthBytes: number,
  advice: number,
) => number;

const syncRange = koffi
  .load(null)
  .func('int sync_file_range(int fd, int64_t offset, int64_t length, uint flags)') as typeof advise;

/** The system begins to write the range to the disk, and does not wait for it: the flush at the end then has less to do. It proves nothing. */
export function startWriting(fd: number, offset: number, lengthBytes: number): void {
  syncRange(fd, offset, lengthBytes, SYNC_FILE_RANGE_WRITE);
}

/** The system begins to read the range, and does not wait for it. */
export function willNeed(fd: number, offset: number, lengthBytes: number): void {
  advise(fd, offset, lengthBytes, POSIX_FADV_WILLNEED);
}

/** The next read of the range comes from the disk, as far as the range was flushed. */
export function dropCached(fd: number, offset: number, lengthBytes: number): void {
  advise(fd, offset, lengthBytes, POSIX_FADV_DONTNEED);
}
