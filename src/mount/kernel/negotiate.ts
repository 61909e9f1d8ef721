/** FUSE_INIT: the first request of a mount, in which kernel and server agree on what the others may be. */
import * as fs from '../../base/fs.ts';
import { UnsupportedError } from '../../base/errors.ts';
import {
  initFlag,
  initFlag2,
  initIn,
  initOut,
  maxTransferBytes,
  oldestMinor,
  operation,
  protocolMajor,
  protocolMinor,
} from './protocol.ts';
import { bodyAt, Reply, Request } from './request.ts';

const pageBytes = 4096;
/**
 * Requests of readahead and of direct I/O that the kernel has open at once, of all files together; above the second it reads less ahead. Those of a
 * disk whose source does not answer stay open until they are failed: they must not be all that there may be.
 */
const maxBackground = 4096;
const congestionThreshold = 3072;

/**
 * What we ask for, where the kernel has it:
 * - writes of up to 1 MiB, and reads of as much, which `max_read` of the mount has the kernel send in pieces; several at once for one file,
 *   buffered and direct
 * - pages of a file are dropped when its time of change or size is no longer the one that they were read with: files that pass through
 *   show what is changed behind the mount, native files keep their pages
 * - files are found again by their handles when the kernel has forgotten them: an NFS server has no more of them
 * - locks of byte ranges are taken on the files behind: programs that use those, or another mount, meet them
 * - folder operations in parallel; listings with attributes where the kernel expects to want them
 * - the umask of who makes a file is left to us, since a folder behind may hand on rights that come before it
 * - set-id bits are taken away by the file system behind, which sees who writes
 * - access control lists, and with them extended attributes, where the kernel need not ask for one at every write: with the second of the two
 *   flags for set-id bits
 *
 * What we do without: the write-back cache (written data must be with us when write returns: an acknowledged write survives the kernel's
 * crash as far as the file behind does, and a change behind the mount would be overwritten by pages that the kernel still holds).
 */
const wanted = flagsOf([
  initFlag.asyncRead,
  initFlag.exportSupport,
  initFlag.rangeLocks,
  initFlag.bigWrites,
  initFlag.dontMask,
  initFlag.autoInvalidateData,
  initFlag.readdirplus,
  initFlag.readdirplusAuto,
  initFlag.asyncDirect,
  initFlag.parallelFolderOperations,
  initFlag.maxPages,
  initFlag.extended,
]);
const wantedWithAttributes = flagsOf([initFlag.killsPrivileges, initFlag.accessLists]);

/** What kernel and server have agreed on. */
export interface Agreed {
  /** The kernel reads and writes files behind by itself, where it is told to. */
  readonly passthrough: boolean;
  /** It asks for extended attributes. */
  readonly hasAttributes: boolean;
}

/**
 * Reads the request from a device that was just mounted, and answers it.
 * @throws UnsupportedError where the kernel's protocol is too old
 */
export function negotiate(device: number): Agreed {
  const request = new Request();
  const reply = new Reply();
  request.lengthBytes = fs.readSync(device, request.bytes);
  if (!request.isSound || request.operation !== operation.init)
    throw new UnsupportedError('the kernel does not begin with FUSE_INIT');
  const offered = initIn.parse(request.bytes, bodyAt);
  if (offered.major !== protocolMajor || offered.minor < oldestMinor) {
    throw new UnsupportedError(
      `the kernel speaks FUSE ${offered.major}.${offered.minor}; ${protocolMajor}.${oldestMinor} (Linux 4.20) is needed`,
    );
  }
  const hasAttributes = (offered.flags & wantedWithAttributes) >>> 0 === wantedWithAttributes;
  const agreed =
    (offered.flags & (wanted | (hasAttributes ? wantedWithAttributes : initFlag.killsPrivilegesAlways))) >>> 0;
  const passthrough = (agreed & initFlag.extended) !== 0 && (offered.flags2 & initFlag2.passthrough) !== 0;
  initOut.encode(
    {
      major: protocolMajor,
      minor: Math.min(offered.minor, protocolMinor),
      maxReadaheadBytes: offered.maxReadaheadBytes,
      flags: agreed,
      maxBackground,
      congestionThreshold,
      maxWriteBytes: maxTransferBytes,
      timeGranularityNanos: 1,
      maxPages: maxTransferBytes / pageBytes,
      mapAlignment: 0,
      flags2: passthrough ? initFlag2.passthrough : 0,
      maxStackDepth: passthrough ? 1 : 0,
    },
    reply.body,
  );
  fs.writeSync(device, reply.bytes, 0, reply.finish(request, 0, initOut.sizeBytes));
  return { passthrough, hasAttributes };
}

function flagsOf(flags: readonly number[]): number {
  return flags.reduce((sum, flag) => sum + flag, 0);
}
