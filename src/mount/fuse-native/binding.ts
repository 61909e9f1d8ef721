/** What we use of the npm package fuse-native 2.2, which has no types of its own. It is imported nowhere else. */
import { createRequire } from 'node:module';

export type Reply = (errno: number) => void;
export type ReplyWith<T> = (errno: number, value?: T) => void;

/** `ino` is a u32 on its way. */
export interface FuseStat {
  readonly mode: number;
  readonly size: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly ino: number;
  readonly blocks: number;
  readonly rdev: number;
  readonly atime: Date;
  readonly mtime: Date;
  readonly ctime: Date;
}

export interface FuseStatFs {
  readonly bsize: number;
  readonly frsize: number;
  readonly blocks: number;
  readonly bfree: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
  readonly favail: number;
  readonly fsid: number;
  readonly flag: number;
  readonly namemax: number;
}

/** `errno` is 0 or negative; read and write reply with a count in its place. `handle` is a u32. */
export interface FuseOperations {
  getattr(path: string, reply: ReplyWith<FuseStat>): void;
  readdir(path: string, reply: (errno: number, names?: string[], stats?: FuseStat[]) => void): void;
  readlink(path: string, reply: ReplyWith<string>): void;
  statfs(path: string, reply: ReplyWith<FuseStatFs>): void;
  open(path: string, flags: number, reply: ReplyWith<number>): void;
  create(path: string, mode: number, reply: ReplyWith<number>): void;
  read(path: string, handle: number, buffer: Uint8Array, length: number, offset: number, reply: Reply): void;
  write(path: string, handle: number, buffer: Uint8Array, length: number, offset: number, reply: Reply): void;
  flush(path: string, handle: number, reply: Reply): void;
  fsync(path: string, dataOnly: number, handle: number, reply: Reply): void;
  release(path: string, handle: number, reply: Reply): void;
  truncate(path: string, size: number, reply: Reply): void;
  ftruncate(path: string, handle: number, size: number, reply: Reply): void;
  /** Times in milliseconds since 1970. */
  utimens(path: string, accessed: number, modified: number, reply: Reply): void;
  chmod(path: string, mode: number, reply: Reply): void;
  chown(path: string, uid: number, gid: number, reply: Reply): void;
  mkdir(path: string, mode: number, reply: Reply): void;
  rmdir(path: string, reply: Reply): void;
  unlink(path: string, reply: Reply): void;
  rename(from: string, to: string, reply: Reply): void;
  link(from: string, to: string, reply: Reply): void;
  symlink(target: string, path: string, reply: Reply): void;
}

export interface FuseOptions {
  readonly fsname: string;
  readonly allowOther: boolean;
  readonly defaultPermissions: boolean;
  readonly autoCache: boolean;
  /** Per operation, in ms; false for none. */
  readonly timeout: Readonly<Record<string, number | false>>;
}

export interface Fuse {
  mount(done: (error: Error | null) => void): void;
}

export type FuseClass = new (mountpoint: string, operations: FuseOperations, options: FuseOptions) => Fuse;

/** Loads the native module. @throws when libfuse.so.2 is missing */
export function loadFuse(): FuseClass {
  return createRequire(import.meta.url)('fuse-native') as FuseClass;
}
