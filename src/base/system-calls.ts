/** System calls that a file system needs and Node does not have, through koffi. Each throws as Node's own would. */
import * as fs from './fs.ts';
import koffi from 'koffi';
import { fallocate } from './fallocate.ts';
import { nameOfBytes, zeroTerminated } from './names.ts';
import { errorOfErrno } from './system-error.ts';
import { nsPerSecond } from './units.ts';

/** Where the flags of *at() calls are relative to: nothing, all paths here are absolute. */
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_SYMLINK_FOLLOW = 0x400;
const AT_EACCESS = 0x200;
/** The same on all machines. */
const faccessat2Number = 439;
const UTIME_NOW = 0x3fffffff;
const UTIME_OMIT = 0x3ffffffe;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
const MFD_CLOEXEC = 1;
const RLIMIT_NOFILE = 7;
const PRIO_PROCESS = 0;
const POLLPRI = 2;
const O_CLOEXEC = 0o2000000;
const AT_EMPTY_PATH = 0x1000;
/** Of struct file_handle: its length and type, and the most that follows. */
const fileHandleHead = 8;
const maxFileHandleBytes = 128;
/** Low, but not so low that a thread which holds a lock is never let on. */
const lowPriority = 10;
const maxLinkBytes = 4096;

/** One time of a file: nanoseconds since 1970, now, or as it is. */
export type TimeChange = bigint | 'now' | undefined;

const libc = koffi.load(null);
const utimensat = libc.func('int utimensat(int folder, const uint8_t *path, const uint8_t *times, int flags)') as (
  folder: number,
  path: Uint8Array,
  times: Uint8Array,
  flags: number,
) => number;
const linkat = libc.func('int linkat(int from, const uint8_t *path, int to, const uint8_t *target, int flags)') as (
  from: number,
  path: Uint8Array,
  to: number,
  target: Uint8Array,
  flags: number,
) => number;
const readlinkat = libc.func(
  'int64_t readlinkat(int folder, const uint8_t *path, _Out_ uint8_t *target, size_t size)',
) as (folder: number, path: Uint8Array, target: Uint8Array, size: number) => number;
const renameat2 = libc.func(
  'int renameat2(int from, const uint8_t *path, int to, const uint8_t *target, uint flags)',
) as (from: number, path: Uint8Array, to: number, target: Uint8Array, flags: number) => number;
const mknod = libc.func('int mknod(const uint8_t *path, uint mode, uint64_t device)') as (
  path: Uint8Array,
  mode: number,
  device: number,
) => number;
const accessWithFlags = libc.func(
  'long syscall(long number, int folder, const uint8_t *path, int mode, int flags)',
) as (number: number, folder: number, path: Uint8Array, mode: number, flags: number) => number;
const getdents64 = libc.func('int64_t getdents64(int fd, _Out_ uint8_t *buffer, size_t size)') as (
  fd: number,
  buffer: Uint8Array,
  size: number,
) => number;
const memfd = libc.func('int memfd_create(const char *name, uint flags)') as (name: string, flags: number) => number;
const copyRange = libc.func(
  'int64_t copy_file_range(int from, int64_t *offset, int to, int64_t *target, size_t length, uint flags)',
) as (from: number, offset: BigInt64Array, to: number, target: BigInt64Array, length: number, flags: number) => number;

const getrlimit = libc.func('int getrlimit(int resource, _Out_ uint64_t *limits)') as (
  resource: number,
  limits: BigUint64Array,
) => number;
const setrlimit = libc.func('int setrlimit(int resource, const uint64_t *limits)') as (
  resource: number,
  limits: BigUint64Array,
) => number;
const setpriority = libc.func('int setpriority(int which, uint who, int priority)') as (
  which: number,
  who: number,
  priority: number,
) => number;
const noPath = zeroTerminated('');
const umount2 = libc.func('int umount2(const uint8_t *target, int flags)') as (
  target: Uint8Array,
  flags: number,
) => number;
const exit = libc.func('void _exit(int code)') as (code: number) => void;

const ioctl = libc.func('int ioctl(int fd, ulong request, const uint32_t *argument)') as (
  fd: number,
  request: number,
  argument: Uint32Array,
) => number;

const dup3 = libc.func('int dup3(int from, int to, int flags)') as (from: number, to: number, flags: number) => number;
const poll = libc.func('int poll(_Inout_ uint8_t *asked, ulong count, int timeoutMs)') as (
  asked: Uint8Array,
  count: number,
  timeoutMs: number,
) => number;
const nameToHandle = libc.func(
  'int name_to_handle_at(int folder, const uint8_t *path, _Inout_ uint8_t *handle, _Out_ int32_t *mount, int flags)',
) as (folder: number, path: Uint8Array, handle: Uint8Array, mount: Int32Array, flags: number) => number;

function checked(result: number, syscall: string, name: string): number {
  if (result < 0) throw errorOfErrno(koffi.errno(), syscall, name);
  return result;
}

/** @param follow whether a link at the end of the path is followed, /proc/self/fd/N among them */
export function changeTimes(path: string, accessed: TimeChange, modified: TimeChange, follow: boolean): void {
  const times = new Uint8Array(32);
  const view = new DataView(times.buffer);
  for (const [index, change] of [accessed, modified].entries()) {
    const at = index * 16;
    if (typeof change !== 'bigint') {
      view.setBigInt64(at + 8, BigInt(change === 'now' ? UTIME_NOW : UTIME_OMIT), true);
      continue;
    }
    const ns = ((change % nsPerSecond) + nsPerSecond) % nsPerSecond;
    view.setBigInt64(at, (change - ns) / nsPerSecond, true);
    view.setBigInt64(at + 8, ns, true);
  }
  checked(utimensat(AT_FDCWD, zeroTerminated(path), times, follow ? 0 : AT_SYMLINK_NOFOLLOW), 'utimensat', path);
}

/** Links the file that `/proc/self/fd/N` leads to. */
export function linkDescriptor(procPath: string, target: string): void {
  checked(
    linkat(AT_FDCWD, zeroTerminated(procPath), AT_FDCWD, zeroTerminated(target), AT_SYMLINK_FOLLOW),
    'link',
    target,
  );
}

/** What a symbolic link that is open with O_PATH says. */
export function readLinkOf(fd: number): string {
  const target = new Uint8Array(maxLinkBytes);
  const length = checked(readlinkat(fd, zeroTerminated(''), target, target.length), 'readlink', String(fd));
  return nameOfBytes(target.subarray(0, length));
}

/** @param flags of renameat2(2): RENAME_NOREPLACE, RENAME_EXCHANGE */
export function renameWith(from: string, to: string, flags: number): void {
  checked(renameat2(AT_FDCWD, zeroTerminated(from), AT_FDCWD, zeroTerminated(to), flags), 'rename', to);
}

/** Whether this thread may run a file. access(2) would ask for the process instead. @throws EACCES */
export function requireExecutable(path: string): void {
  checked(
    accessWithFlags(faccessat2Number, AT_FDCWD, zeroTerminated(path), fs.constants.X_OK, AT_EACCESS),
    'access',
    path,
  );
}

export function makeNode(path: string, mode: number, device: number): void {
  checked(mknod(zeroTerminated(path), mode, device), 'mknod', path);
}

/** Entries of an open folder, as struct linux_dirent64, from where the last call ended; 0 bytes at the end. */
export function readEntries(fd: number, buffer: Uint8Array): number {
  return checked(getdents64(fd, buffer, buffer.length), 'getdents64', String(fd));
}

/** Asks a device for something. @param what names the request in errors */
export function callDevice(fd: number, request: number, argument: Uint32Array, what: string): number {
  return checked(ioctl(fd, request, argument), 'ioctl', what);
}

/** A file that has no name and lives in memory. */
export function memoryFile(name: string): number {
  return checked(memfd(name, MFD_CLOEXEC), 'memfd_create', name);
}

/** `to`, which is open, is the same as `from` from now on, for all threads at one moment. */
export function duplicateTo(from: number, to: number): void {
  checked(dup3(from, to, O_CLOEXEC), 'dup3', String(to));
}

/** Of an open file of /proc that can be polled: whether it reads otherwise than when this was last asked. */
export function hasChanged(fd: number): boolean {
  // struct pollfd: descriptor, what is asked, what is so.
  const asked = new Uint8Array(8);
  const view = new DataView(asked.buffer);
  view.setInt32(0, fd, true);
  view.setInt16(4, POLLPRI, true);
  return poll(asked, 1, 0) > 0;
}

/**
 * What the file system itself knows a file by, another for a later file that gets the same inode number.
 * @returns undefined where the file system has none
 */
export function fileHandleOf(fd: number): Uint8Array | undefined {
  const handle = new Uint8Array(fileHandleHead + maxFileHandleBytes);
  const view = new DataView(handle.buffer);
  view.setUint32(0, maxFileHandleBytes, true);
  if (nameToHandle(fd, noPath, handle, new Int32Array(1), AT_EMPTY_PATH) < 0) return undefined;
  return handle.subarray(0, fileHandleHead + view.getUint32(0, true));
}

/** @param mode of fallocate(2) */
export function allocate(fd: number, mode: number, offset: number, length: number): void {
  const errno = fallocate(fd, mode, offset, length);
  if (errno !== 0) throw errorOfErrno(errno, 'fallocate', String(fd));
}

/** @returns bytes copied, perhaps fewer than asked for */
export function copyFileRange(from: number, offset: number, to: number, target: number, length: number): number {
  const result = copyRange(from, BigInt64Array.of(BigInt(offset)), to, BigInt64Array.of(BigInt(target)), length, 0);
  return checked(result, 'copy_file_range', String(to));
}

/**
 * Raises the limit of open files as far as it goes: for root, to what the kernel can do.
 * @returns the limit now
 */
export function raiseFileLimit(): number {
  const { soft: softNow, hard: hardNow } = fileLimit();
  const [soft, hard] = [BigInt(softNow), BigInt(hardNow)];
  for (const wanted of [BigInt(kernelFileLimit()), hard]) {
    if (wanted <= soft || setrlimit(RLIMIT_NOFILE, BigUint64Array.of(wanted, wanted > hard ? wanted : hard)) === 0)
      return Number(wanted > soft ? wanted : soft);
  }
  return Number(soft);
}

/** How many files this process may have open, and how far it may raise that itself. */
export function fileLimit(): { soft: number; hard: number } {
  const limits = new BigUint64Array(2);
  checked(getrlimit(RLIMIT_NOFILE, limits), 'getrlimit', 'open files');
  return { soft: Number(limits[0]), hard: Number(limits[1]) };
}

function kernelFileLimit(): number {
  try {
    return Number(fs.readFileSync('/proc/sys/fs/nr_open', 'utf8'));
  } catch {
    return 0;
  }
}

/** From now on this thread runs when no other wants to: Linux keeps a priority for each thread. Where it cannot, it runs as before. */
export function yieldToOthers(): void {
  setpriority(PRIO_PROCESS, 0, lowPriority);
}

/**
 * For root. `lazily` takes the mount out of the tree at once, though it is busy.
 * @throws EBUSY, EINVAL where nothing is mounted
 */
export function unmountAsRoot(mountpoint: string, lazily: boolean): void {
  const flags = UMOUNT_NOFOLLOW | (lazily ? MNT_DETACH : 0);
  checked(umount2(zeroTerminated(mountpoint), flags), 'umount', mountpoint);
}

/** Ends the process at once, with threads that wait for the kernel and would never end. */
export function exitNow(code: number): void {
  exit(code);
}
