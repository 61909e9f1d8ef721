/** Makes a range of a file a hole, which reads as zeros and costs no room. */
import { UnavailableError } from '../base/errors.ts';
import { fallocate, fallocateMode } from '../base/fallocate.ts';

/** @throws UnavailableError when the file system cannot; the range is then as it was */
export function punchHole(fd: number, offset: number, lengthBytes: number, name: string): void {
  const errno = fallocate(fd, fallocateMode.keepSize | fallocateMode.punchHole, offset, lengthBytes);
  if (errno !== 0) throw new UnavailableError(`${name}: cannot make a hole at byte ${offset} (errno ${errno})`);
}
