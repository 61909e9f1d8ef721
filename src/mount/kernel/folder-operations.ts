/**
 * Operations on open folders. A listing is made at its start, as the very bytes of the reply, into a file in memory, whose descriptor any
 * worker can go on reading at: the place in the listing is the place in that file. So a listing stays whole while the folder changes.
 */
import * as fs from '../../base/fs.ts';
import { describeError, systemErrorCode } from '../../base/errors.ts';
import { bytesOfName, nameOfBytes } from '../../base/names.ts';
import { alignUp } from '../../base/ranges.ts';
import { memoryFile, readEntries } from '../../base/system-calls.ts';
import { isExpected } from '../errno.ts';
import type { Place } from '../place.ts';
import { Crowd } from './crowd.ts';
import { noNative } from './open-table.ts';
import { entryOut, folderEntry, fsyncIn, operation, releaseIn, transferIn } from './protocol.ts';
import { bodyAt, type Handler, type Reply, type Request } from './request.ts';
import { putEntry, putOpen, type Session } from './session.ts';

const { O_RDONLY, O_DIRECTORY } = fs.constants;
/** Of getdents64: struct linux_dirent64 is inode, offset, length (u16), type (u8), name. */
const dirent = { lengthAt: 16, typeAt: 18, nameAt: 19 } as const;
const entriesBytes = 64 * 1024;
const typeShift = 2 ** 12;

export function folderOperations(session: Session): ReadonlyArray<readonly [number, Handler]> {
  return [
    [
      operation.opendir,
      (request, reply) => {
        // Only to learn whether the caller may list it.
        fs.closeSync(session.filter.openFolder(session.place(request.node)));
        const fd = memoryFile('veneer listing');
        let handle;
        try {
          handle = session.table.add({ kind: 'folder', fd, node: request.node, ...noNative });
        } catch (error) {
          fs.closeSync(fd);
          throw error;
        }
        session.granted(handle);
        return putOpen(reply.body, 0, handle, 0);
      },
    ],
    [operation.readdir, (request, reply) => list(session, request, reply, false)],
    [operation.readdirplus, (request, reply) => list(session, request, reply, true)],
    [
      operation.releasedir,
      (request) => {
        const { slot, serial } = releaseIn.parse(request.bytes, bodyAt);
        session.files.release(slot, serial);
        return 0;
      },
    ],
    [
      operation.fsyncdir,
      (request) => {
        fsyncIn.parse(request.bytes, bodyAt);
        const fd = session.place(request.node).open(O_RDONLY | O_DIRECTORY);
        try {
          fs.fsyncSync(fd);
        } finally {
          fs.closeSync(fd);
        }
        return 0;
      },
    ],
  ];
}

/** @param plus whether each entry comes with its node and attributes */
function list(session: Session, request: Request, reply: Reply, plus: boolean): number {
  const { slot, serial, lengthBytes } = transferIn.parse(request.bytes, bodyAt);
  const offset = request.u64(transferIn.offsetOf('offset'));
  const { fd, kind } = session.table.get(slot, serial);
  if (kind !== 'folder') throw new TypeError(`handle ${slot} is no folder`);
  const folder = session.place(request.node);
  if (offset === 0) makeListing(session, folder, fd);
  const target = reply.front(lengthBytes);
  if (!plus) return wholeEntries(target, fs.readSync(fd, target, 0, target.length, offset));
  const listed = new Uint8Array(lengthBytes);
  return listPlus(session, folder, listed.subarray(0, fs.readSync(fd, listed, 0, listed.length, offset)), target);
}

/** Entries of a listing that are there with their names to the last byte. @returns their length */
function wholeEntries(listed: Uint8Array, lengthBytes: number): number {
  let end = 0;
  for (const entry of entriesOf(listed.subarray(0, lengthBytes))) end = entry.end;
  return end;
}

interface ListedEntry {
  readonly start: number;
  readonly end: number;
  readonly name: string;
}

function* entriesOf(listed: Uint8Array): Generator<ListedEntry> {
  const view = new DataView(listed.buffer, listed.byteOffset, listed.byteLength);
  for (let start = 0; start + folderEntry.sizeBytes <= listed.length;) {
    const nameStart = start + folderEntry.sizeBytes;
    const nameEnd = nameStart + view.getUint32(start + folderEntry.offsetOf('nameBytes'), true);
    const end = alignUp(nameEnd, 8);
    if (end > listed.length) return;
    yield {
      start,
      end,
      name: nameOfBytes(listed.subarray(nameStart, nameEnd)),
    };
    start = end;
  }
}

function listPlus(session: Session, folder: Place, listed: Uint8Array, target: Uint8Array): number {
  let done = 0;
  for (const { start, end, name } of entriesOf(listed)) {
    const length = entryOut.sizeBytes + end - start;
    if (done + length > target.length) break;
    target.fill(0, done, done + entryOut.sizeBytes);
    if (name !== '.' && name !== '..') putNode(session, folder, name, target, done);
    target.set(listed.subarray(start, end), done + entryOut.sizeBytes);
    done += length;
  }
  return done;
}

/** Where the table fills up, or the entry is gone or damaged, nothing is said of it: the kernel asks when it needs to know. */
function putNode(session: Session, folder: Place, name: string, target: Uint8Array, at: number): void {
  if (Crowd.isCrowded(session.nodes)) return;
  try {
    putEntry(target, at, session.lookup(folder, name));
  } catch (error) {
    if (!isExpected(error)) session.log('warn', `${name}: cannot be shown: ${describeError(error)}`, {});
  }
}

/** Writes the whole listing of a folder to the file of a handle. */
function makeListing(session: Session, folder: Place, listingFd: number): void {
  fs.ftruncateSync(listingFd, 0);
  const listing = new Listing(listingFd);
  const fd = folder.open(O_RDONLY | O_DIRECTORY);
  try {
    const numberOf = session.filter.numbersIn(folder, fd);
    const entries = Buffer.alloc(entriesBytes);
    for (let length = readEntriesOf(fd, entries); length > 0; length = readEntriesOf(fd, entries)) {
      for (let at = 0; at < length; at += entries.readUInt16LE(at + dirent.lengthAt)) {
        const nameEnd = entries.indexOf(0, at + dirent.nameAt);
        const bytes = entries.subarray(at + dirent.nameAt, nameEnd);
        const name = nameOfBytes(bytes);
        if (session.filter.hides(folder, name)) continue;
        const type = entries[at + dirent.typeAt] ?? 0;
        listing.add(numberOf(name, type, entries.readBigUInt64LE(at)), type, bytes);
      }
    }
  } finally {
    fs.closeSync(fd);
  }
  for (const { name, type, inode } of session.filter.listMade(folder))
    listing.add(inode, Math.floor(type / typeShift), bytesOfName(name));
  listing.flush();
}

/** A folder that was removed has no entries. */
function readEntriesOf(fd: number, target: Uint8Array): number {
  try {
    return readEntries(fd, target);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return 0;
    throw error;
  }
}

class Listing {
  readonly #fd: number;
  readonly #pending = Buffer.alloc(entriesBytes);
  #pendingBytes = 0;
  #written = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  add(inode: bigint, type: number, name: Uint8Array): void {
    const length = alignUp(folderEntry.sizeBytes + name.length, 8);
    if (this.#pendingBytes + length > this.#pending.length) this.flush();
    const at = this.#pendingBytes;
    this.#pending.fill(0, at, at + length);
    folderEntry.encode(
      { inode, next: BigInt(this.#written + at + length), nameBytes: name.length, type },
      this.#pending,
      at,
    );
    this.#pending.set(name, at + folderEntry.sizeBytes);
    this.#pendingBytes += length;
  }

  flush(): void {
    for (let done = 0; done < this.#pendingBytes;) {
      done += fs.writeSync(this.#fd, this.#pending, done, this.#pendingBytes - done, this.#written + done);
    }
    this.#written += this.#pendingBytes;
    this.#pendingBytes = 0;
  }
}
