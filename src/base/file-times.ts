/** Times of a file to the nanosecond, which Node reads but cannot write. */
import * as fs from './fs.ts';
import koffi from 'koffi';
import { UnavailableError } from './errors.ts';
import { nsPerSecond } from './units.ts';

const futimens = koffi.load(null).func('int futimens(int fd, const int64_t *times)') as (
  fd: number,
  times: BigInt64Array,
) => number;

/** Runs `change`, and gives the file the times that it had before. */
export function keepingTimes(fd: number, name: string, change: () => void): void {
  const { atimeNs, mtimeNs } = fs.fstatSync(fd, { bigint: true });
  const times = BigInt64Array.from([atimeNs, mtimeNs].flatMap((ns) => [ns / nsPerSecond, ns % nsPerSecond]));
  let isKept: boolean;
  try {
    change();
  } finally {
    isKept = futimens(fd, times) === 0;
  }
  if (!isKept)
    throw new UnavailableError(`${name}: its time of change cannot be set; mounts that have it open must mount again`);
}
