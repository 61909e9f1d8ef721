/** posix_fadvise(2) through koffi: what the system should fetch ahead, and what it need not keep. Advice only: where it fails, nothing is lost. */
import koffi from 'koffi';

const POSIX_FADV_WILLNEED = 3;
const POSIX_FADV_DONTNEED = 4;

const advise = koffi.load(null).func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)') as (
  fd: number,
  offset: number,
  lengthBytes: number,
  advice: number,
) => number;

/** The system begins to read the range, and does not wait for it. */
export function willNeed(fd: number, offset: number, lengthBytes: number): void {
  advise(fd, offset, lengthBytes, POSIX_FADV_WILLNEED);
}

/** The next read of the range comes from the disk, as far as the range was flushed. */
export function dropCached(fd: number, offset: number, lengthBytes: number): void {
  advise(fd, offset, lengthBytes, POSIX_FADV_DONTNEED);
}
