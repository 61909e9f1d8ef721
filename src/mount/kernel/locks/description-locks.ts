/**
 * Locks of byte ranges that belong to an open file description (fcntl, F_OFD_SETLK), through koffi. The system takes ranges together and cuts
 * them, as for the locks of a process; they end with the description.
 */
import koffi from 'koffi';
import { systemErrorCode } from '../../../base/errors.ts';
import { errorOfErrno } from '../../../base/system-error.ts';

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
/** As struct flock and FUSE have them. */
export const lockType = { read: 0, write: 1, none: 2 } as const;
export type LockType = (typeof lockType)[keyof typeof lockType];

/** From `start` to `end`, both included. */
export interface LockedRange {
  readonly start: bigint;
  readonly end: bigint;
  readonly type: LockType;
}

/** The last byte that a file can have. */
const lastByte = 2n ** 63n - 1n;
/** struct flock of a 64-bit machine. */
const flockBytes = 32;

const fcntl = koffi.load(null).func('int fcntl(int fd, int command, _Inout_ uint8_t *argument)') as (
  fd: number,
  command: number,
  argument: Uint8Array,
) => number;

/** @returns whether it has it now: false where somebody else's stands in its way. @throws the system's error */
export function setLock(fd: number, range: LockedRange): boolean {
  try {
    call(fd, F_OFD_SETLK, encode(range));
    return true;
  } catch (error) {
    if (systemErrorCode(error) === 'EAGAIN' || systemErrorCode(error) === 'EACCES') return false;
    throw error;
  }
}

/**
 * Whose lock stands in the way of one.
 * @returns undefined where nobody's does; `pid` is that of its process, where it belongs to one
 */
export function conflictWith(fd: number, range: LockedRange): (LockedRange & { readonly pid: number }) | undefined {
  const argument = encode(range);
  call(fd, F_OFD_GETLK, argument);
  const view = new DataView(argument.buffer);
  const type = view.getInt16(0, true);
  if (type === lockType.none) return undefined;
  const start = view.getBigInt64(8, true);
  const length = view.getBigInt64(16, true);
  const end = length === 0n ? lastByte : start + length - 1n;
  return { start, end, type: type as LockType, pid: view.getInt32(24, true) };
}

function encode({ start, end, type }: LockedRange): Uint8Array {
  const argument = new Uint8Array(flockBytes);
  const view = new DataView(argument.buffer);
  view.setInt16(0, type, true);
  view.setBigInt64(8, start, true);
  view.setBigInt64(16, end >= lastByte ? 0n : end - start + 1n, true);
  return argument;
}

function call(fd: number, command: number, argument: Uint8Array): void {
  if (fcntl(fd, command, argument) < 0) throw errorOfErrno(koffi.errno(), 'fcntl', String(fd));
}
