/** Messages to the kernel that answer no request: drop what it keeps of a file or a name, or ask it for a request. */
import fs from 'node:fs';
import { systemErrorCode } from '../../base/errors.ts';
import { invalidateEntry, invalidateInode, notification, outHeader, retrieve, rootNode } from './protocol.ts';

/** Drops the attributes of a node and its pages from `offset` on, all of them by default: its contents are others now. */
export function dropPages(device: number, node: number, offset = 0, lengthBytes = 0): void {
  const body = invalidateInode.encode({
    node: BigInt(node),
    offset: BigInt(offset),
    lengthBytes: BigInt(lengthBytes),
  });
  notify(device, notification.invalidateInode, body);
}

/** Drops what the kernel knows of a name in a folder: it looks it up again. */
export function dropName(device: number, folderNode: number, name: string): void {
  const encoded = Buffer.from(`${name}\0`);
  const head = invalidateEntry.encode({ parent: BigInt(folderNode), nameBytes: encoded.length - 1, flags: 0 });
  notify(device, notification.invalidateEntry, Buffer.concat([head, encoded]));
}

/**
 * Has the kernel send a request, which wakes one worker: the one that waits longest. It is asked for no bytes of the mounted folder's cached
 * pages: an answer that comes as a request and wants no reply. It works without any path to the mount.
 */
export function wakeWorker(device: number): void {
  notify(
    device,
    notification.retrieve,
    retrieve.encode({ notifyUnique: 0n, node: BigInt(rootNode), offset: 0n, lengthBytes: 0 }),
  );
}

/** A node or name that the kernel does not know needs nothing; a mount that is gone, neither. */
function notify(device: number, code: number, body: Uint8Array): void {
  const head = outHeader.encode({ length: outHeader.sizeBytes + body.length, error: code, unique: 0n });
  try {
    fs.writeSync(device, Buffer.concat([head, body]));
  } catch (error) {
    const reason = systemErrorCode(error);
    if (reason !== 'ENOENT' && reason !== 'ENODEV' && reason !== 'ENOTDIR' && reason !== 'ENOTCONN') throw error;
  }
}
