/** The one table from our error codes to errno. A failed system call keeps its own. */
import { constants } from 'node:os';
import { systemErrorCode, VeneerError, type ErrorCode } from '../base/errors.ts';

const { errno } = constants;

const errnoOfCode: Readonly<Record<ErrorCode, number>> = {
  FORMAT: errno.EIO,
  INTEGRITY: errno.EIO,
  UNAVAILABLE: errno.EIO,
  CAPACITY: errno.ENOSPC,
  TOO_LARGE: errno.EFBIG,
  UNSUPPORTED: errno.EIO,
  USAGE: errno.EINVAL,
  READ_ONLY: errno.EROFS,
  FORBIDDEN: errno.EACCES,
  SEVERAL_NAMES: errno.EMLINK,
  BUSY: errno.EBUSY,
  ASSERTION: errno.EIO,
};

/** The positive errno to answer with. Anything unknown is EIO: never success, never data. */
export function errnoOf(error: unknown): number {
  const code = systemErrorCode(error);
  const known = code === undefined ? undefined : (errno as Readonly<Record<string, number>>)[code];
  if (known !== undefined) return known;
  return error instanceof VeneerError ? errnoOfCode[error.code] : errno.EIO;
}

/** Whether an error is everyday life of a file system (no such name, exists already) and not worth a log line. */
export function isExpected(error: unknown): boolean {
  return systemErrorCode(error) !== undefined && errnoOf(error) !== errno.EIO;
}
