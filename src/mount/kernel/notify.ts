/** Messages to the kernel that answer no request: drop what it keeps of a file or a name, or ask it for a request. */
import * as fs from '../../base/fs.ts';
import { systemErrorCode } from '../../base/errors.ts';
import { zeroTerminated } from '../../base/names.ts';
import { invalidateEntry, invalidateInode, notification, outHeader, retrieve } from './protocol.ts';

/** Drops the attributes of a node and its pages from `offset` on, all of them by default: its contents are others now. @returns false where the kernel has no such node */
export function dropPages(device: number, node: number, offset = 0, lengthBytes = 0): boolean {
  const body = invalidateInode.encode({
    node: BigInt(node),
    offset: BigInt(offset),
    lengthBytes: BigInt(lengthBytes),
  });
  return notify(device, notification.invalidateInode, body);
}

/** Drops what the kernel knows of a name in a folder: it looks it up again. @returns false where it knows none */
export function dropName(device: number, folderNode: number, name: string): boolean {
  const encoded = zeroTerminated(name);
  const head = invalidateEntry.encode({ parent: BigInt(folderNode), nameBytes: encoded.length - 1, flags: 0 });
  return notify(device, notification.invalidateEntry, Buffer.concat([head, encoded]));
}

/**
 * Has the kernel send a request, which wakes one worker: the one that waits longest. It is asked for no bytes of a file's cached pages: an
 * answer that comes as a request and wants no reply. It works without any path to the mount.
 * @param node of a regular file
 * @returns false where the kernel has no such node
 */
export function wakeWorker(device: number, node: number): boolean {
  const body = retrieve.encode({ notifyUnique: 0n, node: BigInt(node), offset: 0n, lengthBytes: 0 });
  return notify(device, notification.retrieve, body);
}

/** @returns false where the kernel does not know that node or name, or the mount is gone */
function notify(device: number, code: number, body: Uint8Array): boolean {
  const head = outHeader.encode({ length: outHeader.sizeBytes + body.length, error: code, unique: 0n });
  try {
    fs.writeSync(device, Buffer.concat([head, body]));
    return true;
  } catch (error) {
    const reason = systemErrorCode(error);
    if (reason !== 'ENOENT' && reason !== 'ENODEV' && reason !== 'ENOTDIR' && reason !== 'EINVAL') throw error;
    return false;
  }
}
