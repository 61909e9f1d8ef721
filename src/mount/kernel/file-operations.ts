/** Operations on open files. */
import * as fs from '../../base/fs.ts';
import { seekData, seekHole } from '../../disk/lseek.ts';
import { seekDataPage, seekHolePage } from '../../disk/seek.ts';
import { copyFileRange } from '../../base/system-calls.ts';
import { systemError } from '../../base/system-error.ts';
import { SynthesizedFile, type OpenFile } from '../open-file.ts';
import { OpenedPlace } from '../place.ts';
import { stampOf } from './open-files.ts';
import { noNative } from './open-table.ts';
import {
  copyFileRangeIn,
  fallocateIn,
  fsyncDataOnly,
  fsyncIn,
  lseekIn,
  lseekOut,
  openFlag,
  openIn,
  operation,
  releaseIn,
  transferIn,
  writeOut,
} from './protocol.ts';
import { bodyAt, sizeOf, type Handler, type Reply, type Request } from './request.ts';
import type { ReadAhead } from './read-ahead.ts';
import { lockHandleOf, type LockMessage } from './locks/lock-operations.ts';
import { putOpen, type Session } from './session.ts';

const { O_RDONLY, O_WRONLY, O_RDWR } = fs.constants;
const O_ACCMODE = O_RDONLY | O_WRONLY | O_RDWR;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** A longer copy would keep a worker for too long; the caller asks again for the rest. */
const maxCopyBytes = 64 * 1024 * 1024;

/** READ and WRITE are answered with no object made for the request. */
const transferAt = {
  slot: transferIn.offsetOf('slot'),
  serial: transferIn.offsetOf('serial'),
  offset: transferIn.offsetOf('offset'),
  lengthBytes: transferIn.offsetOf('lengthBytes'),
};

export function readHandler(session: Session, ahead: ReadAhead): Handler {
  const { files } = session;
  return (request, reply) => {
    const slot = request.u32(transferAt.slot);
    const serial = request.u32(transferAt.serial);
    const offset = request.u64(transferAt.offset);
    const lengthBytes = request.u32(transferAt.lengthBytes);
    const file = files.get(slot, serial);
    if (file instanceof SynthesizedFile) ahead.note(file, slot, serial, offset, lengthBytes);
    return file.read(reply.front(lengthBytes), offset);
  };
}

export function fileOperations(
  session: Session,
  handOver: (message: LockMessage) => void,
): ReadonlyArray<readonly [number, Handler]> {
  const { files } = session;
  return [
    [operation.open, (request, reply) => open(session, request, reply)],
    [operation.write, (request, reply) => write(session, request, reply)],
    [
      operation.release,
      (request) => {
        const { slot, serial } = releaseIn.parse(request.bytes, bodyAt);
        if (session.nodes.isLocked(request.node))
          handOver({ kind: 'release', node: request.node, handle: lockHandleOf(slot, serial) });
        files.release(slot, serial);
        return 0;
      },
    ],
    [
      operation.fsync,
      (request) => {
        const { slot, serial, flags } = fsyncIn.parse(request.bytes, bodyAt);
        files.get(slot, serial).sync((flags & fsyncDataOnly) !== 0);
        return 0;
      },
    ],
    [operation.lseek, (request, reply) => seek(session, request, reply)],
    [
      operation.fallocate,
      (request) => {
        const { slot, serial, offset, lengthBytes, mode } = fallocateIn.parse(request.bytes, bodyAt);
        const file = files.get(slot, serial);
        const [at, length] = [sizeOf(offset, 'fallocate'), sizeOf(lengthBytes, 'fallocate')];
        session.changeOpen(file, () => file.allocate(mode, at, length));
        return 0;
      },
    ],
    [
      operation.copyFileRange,
      (request, reply) => {
        const copy = copyFileRangeIn.parse(request.bytes, bodyAt);
        const from = files.descriptorOf(copy.slot, copy.serial);
        const to = files.descriptorOf(copy.toSlot, copy.toSerial);
        // The kernel copies by reading and writing then.
        if (from === undefined || to === undefined) throw systemError('EOPNOTSUPP', 'copy_file_range', 'a native file');
        const length = Math.min(Number(copy.lengthBytes), maxCopyBytes);
        const [offset, toOffset] = [sizeOf(copy.offset, 'copy_file_range'), sizeOf(copy.toOffset, 'copy_file_range')];
        const lengthBytes = session.rights.asCaller(() => copyFileRange(from, offset, to, toOffset, length));
        writeOut.encode({ lengthBytes }, reply.body);
        return writeOut.sizeBytes;
      },
    ],
  ];
}

function open(session: Session, request: Request, reply: Reply): number {
  const { nodes, filter } = session;
  const { flags } = openIn.parse(request.bytes, bodyAt);
  const fd = nodes.descriptorOf(request.node);
  const part = nodes.partOf(request.node);
  // The name of a disk of this moment is kept with the handle: every worker makes the same bytes of it, whatever it is renamed to.
  const place = new OpenedPlace(fd, part);
  const file = filter.open(place, flags);
  if (!(file instanceof SynthesizedFile)) {
    const handle = session.files.add(file, { kind: 'plain', fd: file.fd, node: request.node, ...noNative });
    session.granted(handle);
    const backing = nodes.backingOf(request.node);
    const kept = backing === 0 ? openFlag.parallelDirectWrites : openFlag.passthrough;
    return putOpen(reply.body, 0, handle, kept, backing);
  }
  const stamp = stampOf(file.stat());
  const { path } = place;
  const { slot: counted } = file.counted;
  const record = { kind: 'native', fd: file.fd, node: request.node, path, part, stamp, counted } as const;
  // Before it is asked whether others have the file open.
  const handle = session.files.add(file, record);
  session.granted(handle);
  const backing = session.backings.of(file, handle.slot, (flags & O_ACCMODE) !== O_RDONLY);
  if (backing !== undefined) return putOpen(reply.body, 0, handle, openFlag.passthrough, backing);
  const mayKeep = nodes.keepStamp(request.node, stamp) && !file.isWrittenDirectly;
  return putOpen(reply.body, 0, handle, mayKeep ? openFlag.keepCache : 0);
}

function write(session: Session, request: Request, reply: Reply): number {
  const file = session.files.get(request.u32(transferAt.slot), request.u32(transferAt.serial));
  const start = bodyAt + transferIn.sizeBytes;
  const end = start + request.u32(transferAt.lengthBytes);
  if (end > request.lengthBytes) throw systemError('EINVAL', 'write', `${end} bytes`);
  const source = request.bytes.subarray(start, end);
  const offset = request.u64(transferAt.offset);
  const lengthBytes = file.isNative
    ? file.write(source, offset)
    : session.changeOpen(file, () => file.write(source, offset));
  writeOut.encode({ lengthBytes }, reply.body);
  return writeOut.sizeBytes;
}

function seek(session: Session, request: Request, reply: Reply): number {
  const { slot, serial, whence, offset } = lseekIn.parse(request.bytes, bodyAt);
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw systemError('EINVAL', 'lseek', String(whence));
  const file = session.files.get(slot, serial);
  const { runs } = file;
  const sizeBytes = runs === undefined ? file.stat().size : BigInt(runs.sizeBytes);
  // Offsets below zero, which come as those from 2^63 on, are past every end.
  if (offset >= sizeBytes) throw systemError('ENXIO', 'lseek', String(offset));
  const found = (whence === SEEK_DATA ? nextData : nextHole)(file, sizeOf(offset, 'lseek'));
  if (found === undefined) throw systemError('ENXIO', 'lseek', String(offset));
  lseekOut.encode({ offset: BigInt(found) }, reply.body);
  return lseekOut.sizeBytes;
}

function nextData({ runs, fd }: OpenFile, offset: number): number | undefined {
  return runs === undefined ? seekData(fd, offset, 'the file') : seekDataPage(runs, offset);
}

function nextHole({ runs, fd }: OpenFile, offset: number): number | undefined {
  return runs === undefined ? seekHole(fd, offset, 'the file') : seekHolePage(runs, offset);
}
