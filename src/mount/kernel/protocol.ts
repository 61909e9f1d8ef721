/**
 * The FUSE protocol as it is spoken on /dev/fuse: version 7, as Linux's own header <linux/fuse.h> declares it. Little-endian: the
 * protocol has the machine's own byte order, and Node runs on no others here.
 *
 *   request   in header (40 B), then a fixed structure for the operation, then names that each end in a zero byte, or data
 *   reply     out header (16 B), then a fixed structure for the operation, or data
 *
 * What every read and write needs is read at offsets that these layouts give, so that no object is made for it.
 */
import { KiB, MiB } from '../../base/units.ts';
import { layout, reserved, s32le, s64le, u16le, u32le, u64le } from '../../bytes/layout.ts';

export const protocolMajor = 7;
/** The newest minor version that these layouts are declared after. */
export const protocolMinor = 40;
/** Before this, replies had other sizes. Linux 4.20 has 7.28. */
export const oldestMinor = 28;

/** The node number of the mounted folder. */
export const rootNode = 1;
/** The most that one read or write carries. */
export const maxTransferBytes = MiB;
/** What the kernel asks for in one read. It sends the pieces of a longer one all at once, and several workers make them side by side. */
export const maxReadBytes = 256 * KiB;
/** Room for the headers before the data of a write. */
export const requestHeadBytes = 4096;

export const operation = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  setattr: 4,
  readlink: 5,
  symlink: 6,
  mknod: 8,
  mkdir: 9,
  unlink: 10,
  rmdir: 11,
  rename: 12,
  link: 13,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  setxattr: 21,
  getxattr: 22,
  listxattr: 23,
  removexattr: 24,
  flush: 25,
  init: 26,
  opendir: 27,
  readdir: 28,
  releasedir: 29,
  fsyncdir: 30,
  getLock: 31,
  setLock: 32,
  setLockWaiting: 33,
  create: 35,
  interrupt: 36,
  destroy: 38,
  notifyReply: 41,
  batchForget: 42,
  fallocate: 43,
  readdirplus: 44,
  rename2: 45,
  lseek: 46,
  copyFileRange: 47,
} as const;

/** Flags of INIT: what kernel and server agree on. */
export const initFlag = {
  asyncRead: 2 ** 0,
  /** Locks of byte ranges are asked for. Those of whole files (flock) stay the kernel's own, for this mount. */
  rangeLocks: 2 ** 1,
  /** Nodes may be looked up as `.` and `..`, by their number alone. */
  exportSupport: 2 ** 4,
  bigWrites: 2 ** 5,
  /** The server applies the umask of who makes a file, as the folder says. */
  dontMask: 2 ** 6,
  autoInvalidateData: 2 ** 12,
  readdirplus: 2 ** 13,
  readdirplusAuto: 2 ** 14,
  asyncDirect: 2 ** 15,
  parallelFolderOperations: 2 ** 18,
  /** The server takes set-id bits away at writes, cuts and changes of the owner. */
  killsPrivilegesAlways: 2 ** 19,
  /** The kernel judges by access control lists, which it asks for as extended attributes. */
  accessLists: 2 ** 20,
  maxPages: 2 ** 22,
  /** The same, and of a write or a cut the kernel says whether it is to (Linux 5.11). */
  killsPrivileges: 2 ** 28,
  /** There is a second word of flags. */
  extended: 2 ** 30,
} as const;

/** Flags of INIT's second word: reads and writes of a handle may go straight to a file behind, in the kernel (Linux 6.9). */
export const initFlag2 = { passthrough: 2 ** 5 } as const;

/** Flags of the reply to OPEN. */
export const openFlag = { keepCache: 2, parallelDirectWrites: 64, passthrough: 128 } as const;

/** Which attributes SETATTR changes. */
export const setattrFlag = {
  mode: 1,
  uid: 2,
  gid: 4,
  size: 8,
  accessed: 16,
  modified: 32,
  handle: 64,
  accessedNow: 128,
  modifiedNow: 256,
} as const;

/** Set in FSYNC when only the data and what is needed to read it must be durable. */
export const fsyncDataOnly = 1;

export const notification = { invalidateInode: 2, invalidateEntry: 3, retrieve: 5 } as const;

export const inHeader = layout('FUSE request header', 40, {
  length: u32le(0),
  operation: u32le(4),
  unique: u64le(8), //       names the request in its reply
  node: u64le(16),
  uid: u32le(24),
  gid: u32le(28),
  pid: u32le(32),
  extensionWords: u16le(36), // u64 words of extensions behind: none are agreed on
  padding: reserved(38, 2),
});

export const outHeader = layout('FUSE reply header', 16, {
  length: u32le(0),
  error: s32le(4), //        0 or a negative errno; in a notification its code
  unique: u64le(8), //       0 in a notification
});

const attributesBytes = 88;
const attributesAt = <N extends number>(at: N) => ({
  inode: u64le(at),
  sizeBytes: u64le(at + 8),
  blocks512: u64le(at + 16),
  accessedSeconds: s64le(at + 24),
  modifiedSeconds: s64le(at + 32),
  changedSeconds: s64le(at + 40),
  accessedNanos: u32le(at + 48),
  modifiedNanos: u32le(at + 52),
  changedNanos: u32le(at + 56),
  mode: u32le(at + 60),
  links: u32le(at + 64),
  uid: u32le(at + 68),
  gid: u32le(at + 72),
  device: u32le(at + 76),
  blockBytes: u32le(at + 80), // 0: the kernel's own
  flags: u32le(at + 84),
});

export const entryOut = layout('FUSE entry', 40 + attributesBytes, {
  node: u64le(0), //         0: there is no such name (or, in a listing, nothing is said of it)
  generation: u64le(8),
  nameValidSeconds: u64le(16),
  attributesValidSeconds: u64le(24),
  nameValidNanos: u32le(32),
  attributesValidNanos: u32le(36),
  ...attributesAt(40),
});

export const attributesOut = layout('FUSE attributes', 16 + attributesBytes, {
  attributesValidSeconds: u64le(0),
  attributesValidNanos: u32le(8),
  padding: reserved(12, 4),
  ...attributesAt(16),
});

export const initIn = layout('FUSE_INIT request', 20, {
  major: u32le(0),
  minor: u32le(4),
  maxReadaheadBytes: u32le(8),
  flags: u32le(12),
  flags2: u32le(16), //      0 where the request ends before it
});

export const initOut = layout('FUSE_INIT reply', 64, {
  major: u32le(0),
  minor: u32le(4),
  maxReadaheadBytes: u32le(8),
  flags: u32le(12),
  maxBackground: u16le(16), //        requests that nobody waits for (readahead, asynchronous direct I/O) at once
  congestionThreshold: u16le(18),
  maxWriteBytes: u32le(20),
  timeGranularityNanos: u32le(24),
  maxPages: u16le(28), //             4 KiB pages in one request
  mapAlignment: u16le(30),
  flags2: u32le(32),
  maxStackDepth: u32le(36), //       of file systems below that files behind may lie on, with passthrough
  reserved: reserved(40, 24),
});

export const forgetIn = layout('FUSE_FORGET request', 8, { lookups: u64le(0) });
export const batchForgetIn = layout('FUSE_BATCH_FORGET request', 8, { count: u32le(0), padding: reserved(4, 4) });
export const forgetOne = layout('FUSE_BATCH_FORGET entry', 16, { node: u64le(0), lookups: u64le(8) });

export const setattrIn = layout('FUSE_SETATTR request', 88, {
  valid: u32le(0), //                 setattrFlag
  padding: reserved(4, 4),
  handle: u64le(8),
  sizeBytes: u64le(16),
  lockOwner: reserved(24, 8),
  accessedSeconds: s64le(32),
  modifiedSeconds: s64le(40),
  changedSeconds: reserved(48, 8),
  accessedNanos: u32le(56),
  modifiedNanos: u32le(60),
  changedNanos: reserved(64, 4),
  mode: u32le(68),
  unused4: reserved(72, 4),
  uid: u32le(76),
  gid: u32le(80),
  unused5: reserved(84, 4),
});

export const mknodIn = layout('FUSE_MKNOD request', 16, {
  mode: u32le(0),
  device: u32le(4),
  umask: u32le(8), //                 which the kernel has applied unless initFlag.dontMask
  padding: reserved(12, 4),
});
export const setxattrIn = layout('FUSE_SETXATTR request', 8, {
  lengthBytes: u32le(0), //           of the value, which follows the name
  flags: u32le(4), //                 of setxattr(2)
});
/** GETXATTR and LISTXATTR. */
export const getxattrIn = layout('FUSE_GETXATTR request', 8, {
  lengthBytes: u32le(0), //           that there is room for; 0: the length alone is asked for
  padding: reserved(4, 4),
});
export const getxattrOut = layout('FUSE_GETXATTR reply', 8, { lengthBytes: u32le(0), padding: reserved(4, 4) });
export const mkdirIn = layout('FUSE_MKDIR request', 8, { mode: u32le(0), umask: u32le(4) });
export const renameIn = layout('FUSE_RENAME request', 8, { toFolder: u64le(0) });
export const rename2In = layout('FUSE_RENAME2 request', 16, {
  toFolder: u64le(0),
  flags: u32le(8), //                 of renameat2(2)
  padding: reserved(12, 4),
});
export const linkIn = layout('FUSE_LINK request', 8, { node: u64le(0) });

export const openIn = layout('FUSE_OPEN request', 8, { flags: u32le(0), openFlags: u32le(4) });
export const createIn = layout('FUSE_CREATE request', 16, {
  flags: u32le(0),
  mode: u32le(4),
  umask: u32le(8),
  openFlags: u32le(12),
});
export const openOut = layout('FUSE_OPEN reply', 16, {
  slot: u32le(0), //                  slot and serial are one u64 to the kernel: the handle
  serial: u32le(4),
  flags: u32le(8), //                 openFlag
  backing: u32le(12),
});

/** READ and WRITE. A write's data follows. */
export const transferIn = layout('FUSE_READ or FUSE_WRITE request', 40, {
  slot: u32le(0),
  serial: u32le(4),
  offset: u64le(8),
  lengthBytes: u32le(16),
  transferFlags: u32le(20),
  lockOwner: u64le(24),
  flags: u32le(32), //                of open(2)
  padding: reserved(36, 4),
});
export const writeOut = layout('FUSE_WRITE reply', 8, { lengthBytes: u32le(0), padding: reserved(4, 4) });

export const releaseIn = layout('FUSE_RELEASE request', 24, {
  slot: u32le(0),
  serial: u32le(4),
  flags: u32le(8),
  releaseFlags: u32le(12),
  lockOwner: u64le(16),
});
export const fsyncIn = layout('FUSE_FSYNC request', 16, {
  slot: u32le(0),
  serial: u32le(4),
  flags: u32le(8),
  padding: reserved(12, 4),
});
/** GETLK, SETLK and SETLKW. */
export const lockIn = layout('FUSE_GETLK or FUSE_SETLK request', 48, {
  handle: u64le(0),
  owner: u64le(8), //                 of the locks: a process's table of descriptors, or an open file description
  start: u64le(16),
  end: u64le(24), //                  the last byte
  type: u32le(32), //                 of struct flock
  pid: u32le(36),
  flags: u32le(40),
  padding: reserved(44, 4),
});
export const lockOut = layout('FUSE_GETLK reply', 24, {
  start: u64le(0),
  end: u64le(8),
  type: u32le(16), //                 none: nothing stands in the way
  pid: u32le(20),
});
export const flushIn = layout('FUSE_FLUSH request', 24, {
  handle: u64le(0),
  padding: reserved(8, 8),
  lockOwner: u64le(16), //            of the process that closes a descriptor
});
export const interruptIn = layout('FUSE_INTERRUPT request', 8, { unique: u64le(0) });
export const lseekIn = layout('FUSE_LSEEK request', 24, {
  slot: u32le(0),
  serial: u32le(4),
  offset: u64le(8),
  whence: u32le(16),
  padding: reserved(20, 4),
});
export const lseekOut = layout('FUSE_LSEEK reply', 8, { offset: u64le(0) });
export const fallocateIn = layout('FUSE_FALLOCATE request', 32, {
  slot: u32le(0),
  serial: u32le(4),
  offset: u64le(8),
  lengthBytes: u64le(16),
  mode: u32le(24), //                 of fallocate(2)
  padding: reserved(28, 4),
});
export const copyFileRangeIn = layout('FUSE_COPY_FILE_RANGE request', 56, {
  slot: u32le(0),
  serial: u32le(4),
  offset: u64le(8),
  toNode: u64le(16),
  toSlot: u32le(24),
  toSerial: u32le(28),
  toOffset: u64le(32),
  lengthBytes: u64le(40),
  flags: u64le(48),
});

export const statfsOut = layout('FUSE_STATFS reply', 80, {
  blocks: u64le(0),
  freeBlocks: u64le(8),
  availableBlocks: u64le(16), //      to others than root
  files: u64le(24),
  freeFiles: u64le(32),
  blockBytes: u32le(40),
  maxNameBytes: u32le(44),
  fragmentBytes: u32le(48), //        the unit of the counts
  reserved: reserved(52, 28),
});

/** An entry of a folder, followed by its name, padded to 8 bytes with zeros. In a READDIRPLUS reply an entryOut comes before it. */
export const folderEntry = layout('FUSE folder entry', 24, {
  inode: u64le(0),
  next: u64le(8), //                  where the listing goes on behind this entry
  nameBytes: u32le(16),
  type: u32le(20), //                 file type bits of a mode, shifted down by 12
});

export const invalidateInode = layout('FUSE_NOTIFY_INVAL_INODE', 24, {
  node: u64le(0),
  offset: s64le(8), //                negative: attributes alone
  lengthBytes: s64le(16), //          0 or less: to the end
});
export const retrieve = layout('FUSE_NOTIFY_RETRIEVE', 32, {
  notifyUnique: u64le(0), //          of the request that the kernel answers with
  node: u64le(8),
  offset: u64le(16),
  lengthBytes: u32le(24),
  padding: reserved(28, 4),
});
export const invalidateEntry = layout('FUSE_NOTIFY_INVAL_ENTRY', 16, {
  parent: u64le(0),
  nameBytes: u32le(8), //             the name and a zero byte follow
  flags: u32le(12),
});
