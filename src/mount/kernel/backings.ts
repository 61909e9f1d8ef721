/**
 * Passthrough: a file behind is registered with the kernel, which then reads and writes it by itself for every handle that was answered with
 * the number it gave. For disk files that are complete: nothing is left to be made on the fly, and the guest has the file's own speed.
 *
 * The kernel's rules (Linux 6.9): all handles of a file that are open at once have the same number, and none of them is an ordinary one. Who
 * registers needs CAP_SYS_ADMIN, and the file behind must not lie on a stacked file system itself. Where it refuses, handles stay ordinary.
 */
import koffi from 'koffi';
import { errorOfErrno } from '../system-error.ts';
import { describeError } from '../../base/errors.ts';
import type { Log } from '../native-file-state.ts';
import type { SynthesizedFile } from '../open-file.ts';

/** _IOW(229, 1, struct fuse_backing_map), _IOW(229, 2, uint32_t) */
const FUSE_DEV_IOC_BACKING_OPEN = 0x4010e501;
const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004e502;

const ioctl = koffi.load(null).func('int ioctl(int fd, ulong request, const uint32_t *argument)') as (
  fd: number,
  request: number,
  argument: Uint32Array,
) => number;

export class Backings {
  #channel: number | undefined;
  readonly #log: Log;

  /** @param channel of the mount; undefined where the kernel cannot */
  constructor(channel: number | undefined, log: Log) {
    this.#channel = channel;
    this.#log = log;
  }

  /** The number to answer an open with; undefined where the handle is to be an ordinary one. */
  of(file: SynthesizedFile, forWriting: boolean): number | undefined {
    const channel = this.#channel;
    const direct = channel === undefined ? undefined : file.directFile;
    if (channel === undefined || direct === undefined) return undefined;
    try {
      const backing = Atomics.load(direct.backing, 0) || register(channel, direct.fd, direct.backing);
      if (forWriting) direct.allowWrites();
      return backing;
    } catch (error) {
      // What it refused once, it refuses again.
      this.#channel = undefined;
      this.#log('info', `the kernel does not serve complete disk files by itself: ${describeError(error)}`, {});
      return undefined;
    }
  }
}

/** Of two threads that register at once, the second takes the number of the first. */
function register(channel: number, fd: number, agreed: Int32Array): number {
  const backing = ioctl(channel, FUSE_DEV_IOC_BACKING_OPEN, Uint32Array.of(fd, 0, 0, 0));
  if (backing <= 0) throw errorOfErrno(koffi.errno(), 'ioctl', 'FUSE_DEV_IOC_BACKING_OPEN');
  const first = Atomics.compareExchange(agreed, 0, 0, backing);
  if (first === 0) return backing;
  ioctl(channel, FUSE_DEV_IOC_BACKING_CLOSE, Uint32Array.of(backing));
  return first;
}
