/** Operations on names and on what they name: everything but open files and folders. */
import * as fs from '../../base/fs.ts';
import { systemErrorCode } from '../../base/errors.ts';
import { bytesOfName } from '../../base/names.ts';
import { openPath } from '../../base/open-path.ts';
import type { TimeChange } from '../../base/system-calls.ts';
import { systemError } from '../../base/system-error.ts';
import { noNative } from './open-table.ts';
import {
  batchForgetIn,
  createIn,
  entryOut,
  forgetIn,
  forgetOne,
  linkIn,
  mkdirIn,
  mknodIn,
  operation,
  rename2In,
  renameIn,
  setattrFlag,
  setattrIn,
  statfsOut,
} from './protocol.ts';
import { bodyAt, noReply, sizeOf, type Handler, type Reply, type Request } from './request.ts';
import { putAttributes, putEntry, putOpen, type Session } from './session.ts';
import { nsPerSecond } from '../../base/units.ts';

const maxNameBytes = 255;

export function nameOperations(session: Session): ReadonlyArray<readonly [number, Handler]> {
  const { filter, nodes } = session;
  const replyEntry = (reply: Reply, folderNode: number, name: string): number => {
    return putEntry(reply.body, 0, session.lookup(session.place(folderNode), name));
  };
  return [
    [
      operation.lookup,
      (request, reply) => {
        const { text } = request.text(0);
        if (text === '.') return putEntry(reply.body, 0, session.lookupAgain(request.node));
        if (text === '..') return putEntry(reply.body, 0, session.lookupParent(request.node));
        return replyEntry(reply, request.node, request.name(0).text);
      },
    ],
    [
      operation.forget,
      (request) => {
        session.forget(request.node, Number(forgetIn.parse(request.bytes, bodyAt).lookups));
        return noReply;
      },
    ],
    [operation.batchForget, (request) => batchForget(session, request)],
    [operation.getattr, (request, reply) => putAttributes(reply.body, filter.attributes(session.place(request.node)))],
    [operation.setattr, (request, reply) => setattr(session, request, reply)],
    [
      operation.readlink,
      (request, reply) => {
        const target = bytesOfName(filter.readLink(session.place(request.node)));
        reply.body.set(target);
        return target.length;
      },
    ],
    [
      operation.symlink,
      (request, reply) => {
        const { text: name, end } = request.name(0);
        const place = filter.child(session.place(request.node), name);
        filter.makeSymlink(place, request.text(end).text);
        return replyEntry(reply, request.node, name);
      },
    ],
    [
      operation.mknod,
      (request, reply) => {
        const { mode, device, umask } = mknodIn.parse(request.bytes, bodyAt);
        const { text: name } = request.name(mknodIn.sizeBytes);
        filter.makeNode(filter.child(session.place(request.node), name), mode, device, umask);
        return replyEntry(reply, request.node, name);
      },
    ],
    [
      operation.mkdir,
      (request, reply) => {
        const { text: name } = request.name(mkdirIn.sizeBytes);
        const { mode, umask } = mkdirIn.parse(request.bytes, bodyAt);
        filter.makeFolder(filter.child(session.place(request.node), name), mode, umask);
        return replyEntry(reply, request.node, name);
      },
    ],
    [
      operation.unlink,
      (request) => {
        filter.removeFile(filter.child(session.place(request.node), request.name(0).text));
        return 0;
      },
    ],
    [
      operation.rmdir,
      (request) => {
        filter.removeFolder(filter.child(session.place(request.node), request.name(0).text));
        return 0;
      },
    ],
    [
      operation.rename,
      (request) =>
        rename(session, request, Number(renameIn.parse(request.bytes, bodyAt).toFolder), 0, renameIn.sizeBytes),
    ],
    [
      operation.rename2,
      (request) => {
        const { toFolder, flags } = rename2In.parse(request.bytes, bodyAt);
        return rename(session, request, Number(toFolder), flags, rename2In.sizeBytes);
      },
    ],
    [
      operation.link,
      (request, reply) => {
        const from = session.place(Number(linkIn.parse(request.bytes, bodyAt).node));
        const { text: name } = request.name(linkIn.sizeBytes);
        filter.makeLink(from, filter.child(session.place(request.node), name));
        return replyEntry(reply, request.node, name);
      },
    ],
    [operation.create, (request, reply) => create(session, request, reply)],
    [
      operation.statfs,
      (request, reply) => {
        const space = filter.space(session.place(nodes.isNode(request.node) ? request.node : 1));
        const blockBytes = space.bsize;
        statfsOut.encode(
          {
            blocks: BigInt(space.blocks),
            freeBlocks: BigInt(space.bfree),
            availableBlocks: BigInt(space.bavail),
            files: BigInt(space.files),
            freeFiles: BigInt(space.ffree),
            blockBytes,
            fragmentBytes: blockBytes,
            maxNameBytes,
          },
          reply.body,
        );
        return statfsOut.sizeBytes;
      },
    ],
  ];
}

function batchForget(session: Session, request: Request): number {
  const { count } = batchForgetIn.parse(request.bytes, bodyAt);
  for (let index = 0; index < count; index++) {
    const at = bodyAt + batchForgetIn.sizeBytes + index * forgetOne.sizeBytes;
    if (at + forgetOne.sizeBytes > request.lengthBytes) break;
    const { node, lookups } = forgetOne.parse(request.bytes, at);
    session.forget(Number(node), Number(lookups));
  }
  return noReply;
}

function setattr(session: Session, request: Request, reply: Reply): number {
  const { filter } = session;
  const change = setattrIn.parse(request.bytes, bodyAt);
  const has = (flag: number): boolean => (change.valid & flag) !== 0;
  const place = session.place(request.node);
  if (has(setattrFlag.mode)) filter.changeMode(place, change.mode);
  if (has(setattrFlag.uid) || has(setattrFlag.gid))
    filter.changeOwner(place, has(setattrFlag.uid) ? change.uid : -1, has(setattrFlag.gid) ? change.gid : -1);
  if (has(setattrFlag.size)) {
    const sizeBytes = sizeOf(change.sizeBytes, 'truncate');
    const slot = Number(BigInt.asUintN(32, change.handle));
    // By the handle where there is one: the file's mode may forbid to open it anew.
    if (has(setattrFlag.handle)) {
      const file = session.files.get(slot, Number(change.handle >> 32n));
      session.changeOpen(file, () => file.truncate(sizeBytes));
    } else filter.truncate(place, sizeBytes);
  }
  const time = (given: number, now: number, seconds: bigint, nanos: number): TimeChange => {
    if (has(now)) return 'now';
    return has(given) ? seconds * nsPerSecond + BigInt(nanos) : undefined;
  };
  const { accessed, accessedNow, modified, modifiedNow } = setattrFlag;
  if (has(accessed | modified)) {
    filter.changeTimes(
      place,
      time(accessed, accessedNow, change.accessedSeconds, change.accessedNanos),
      time(modified, modifiedNow, change.modifiedSeconds, change.modifiedNanos),
    );
  }
  return putAttributes(reply.body, filter.attributes(place));
}

function rename(session: Session, request: Request, toFolder: number, flags: number, namesAt: number): number {
  const { filter } = session;
  const from = request.name(namesAt);
  const to = request.name(from.end);
  filter.rename(
    filter.child(session.place(request.node), from.text),
    filter.child(session.place(toFolder), to.text),
    flags,
  );
  return 0;
}

function create(session: Session, request: Request, reply: Reply): number {
  const { filter } = session;
  const { flags, mode, umask } = createIn.parse(request.bytes, bodyAt);
  const { text: name } = request.name(createIn.sizeBytes);
  let file;
  try {
    file = filter.create(filter.child(session.place(request.node), name), mode, umask);
  } catch (error) {
    // Made behind the mount a moment ago: the kernel looks it up again then, and checks whether the caller may open it.
    if (systemErrorCode(error) === 'EEXIST' && (flags & fs.constants.O_EXCL) === 0)
      throw systemError('ESTALE', 'open', name);
    throw error;
  }
  const handle = session.files.add(file, { kind: 'plain', fd: file.fd, node: 0, ...noNative });
  session.granted(handle);
  putEntry(reply.body, 0, session.enter(openPath(`/proc/self/fd/${file.fd}`, true), ''));
  return entryOut.sizeBytes + putOpen(reply.body, entryOut.sizeBytes, handle, 0);
}
