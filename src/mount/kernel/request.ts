/** One request and its reply, as bytes in buffers that a worker uses again and again. */
import { nameWithin } from '../../base/names.ts';
import { systemError } from '../../base/system-error.ts';
import { inHeader, maxTransferBytes, outHeader, requestHeadBytes } from './protocol.ts';

const at = {
  length: inHeader.offsetOf('length'),
  operation: inHeader.offsetOf('operation'),
  unique: inHeader.offsetOf('unique'),
  node: inHeader.offsetOf('node'),
  uid: inHeader.offsetOf('uid'),
  gid: inHeader.offsetOf('gid'),
  pid: inHeader.offsetOf('pid'),
};
/** Where the fixed structure of an operation starts. */
export const bodyAt = inHeader.sizeBytes;
const high = 2 ** 32;

/** An offset or a length as a number. @throws EFBIG past 2^53, which no file here reaches */
export function sizeOf(value: bigint, call: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw systemError('EFBIG', call, String(value));
  return Number(value);
}

export class Request {
  readonly bytes: Buffer = Buffer.from(new ArrayBuffer(maxTransferBytes + requestHeadBytes));
  readonly view: DataView = new DataView(this.bytes.buffer);
  /** Bytes of this request. */
  lengthBytes = 0;
  /** When it was first taken up, for one that has waited; see waiting-room.ts. */
  sinceUnixMs: number | undefined;

  /** Whether the kernel's header makes sense. */
  get isSound(): boolean {
    return this.lengthBytes >= bodyAt && this.view.getUint32(at.length, true) === this.lengthBytes;
  }

  get operation(): number {
    return this.view.getUint32(at.operation, true);
  }

  get uniqueLow(): number {
    return this.view.getInt32(at.unique, true);
  }

  get uniqueHigh(): number {
    return this.view.getInt32(at.unique + 4, true);
  }

  get unique(): bigint {
    return this.view.getBigUint64(at.unique, true);
  }

  get node(): number {
    return this.view.getUint32(at.node, true) + this.view.getUint32(at.node + 4, true) * high;
  }

  get uid(): number {
    return this.view.getUint32(at.uid, true);
  }

  get gid(): number {
    return this.view.getUint32(at.gid, true);
  }

  /** Of the thread that asks; 0 where it has no number in this process's PID namespace. */
  get pid(): number {
    return this.view.getUint32(at.pid, true);
  }

  /** A field of the operation's structure. */
  u32(offset: number): number {
    return this.view.getUint32(bodyAt + offset, true);
  }

  /** A field of the operation's structure. @throws EFBIG past 2^53, which no file here reaches */
  u64(offset: number): number {
    const value = this.view.getUint32(bodyAt + offset, true) + this.view.getUint32(bodyAt + offset + 4, true) * high;
    if (!Number.isSafeInteger(value)) throw systemError('EFBIG', 'fuse', String(value));
    return value;
  }

  /** The text that ends in a zero byte, `offset` bytes into the body. @throws EINVAL where there is none */
  text(offset: number): { text: string; end: number } {
    const start = bodyAt + offset;
    const end = this.bytes.indexOf(0, start);
    if (end < 0 || end >= this.lengthBytes) throw systemError('EINVAL', 'fuse', 'a request without a name');
    return { text: nameWithin(this.bytes, start, end), end: end + 1 - bodyAt };
  }

  /** A file name. @throws EINVAL where it cannot be one */
  name(offset: number): { text: string; end: number } {
    const found = this.text(offset);
    if (found.text === '' || found.text === '.' || found.text === '..' || found.text.includes('/'))
      throw systemError('EINVAL', 'fuse', found.text);
    return found;
  }
}

const headBytes = outHeader.sizeBytes;
/** Views of usual sizes are kept: a read needs no new one. */
const maxKeptViews = 64;

export class Reply {
  readonly bytes: Buffer = Buffer.from(new ArrayBuffer(headBytes + maxTransferBytes));
  readonly view: DataView = new DataView(this.bytes.buffer);
  /** What follows the header. */
  readonly body: Uint8Array = new Uint8Array(this.bytes.buffer, headBytes);
  readonly #views = new Map<number, Uint8Array>();

  /** The first `lengthBytes` of the body. @throws EINVAL when the kernel asks for more than was agreed on */
  front(lengthBytes: number): Uint8Array {
    let view = this.#views.get(lengthBytes);
    if (view !== undefined) return view;
    if (lengthBytes > maxTransferBytes) throw systemError('EINVAL', 'fuse', `${lengthBytes} bytes`);
    view = this.body.subarray(0, lengthBytes);
    if (this.#views.size < maxKeptViews) this.#views.set(lengthBytes, view);
    return view;
  }

  /** Makes the header of the reply to a request. @returns how long the reply is with it */
  finish(request: Request, errno: number, bodyBytes: number): number {
    const lengthBytes = headBytes + bodyBytes;
    this.view.setUint32(0, lengthBytes, true);
    this.view.setInt32(4, -errno, true);
    this.view.setInt32(8, request.uniqueLow, true);
    this.view.setInt32(12, request.uniqueHigh, true);
    return lengthBytes;
  }
}

/** What a handler returns where the kernel wants no reply. */
export const noReply = -1;

/** Answers one operation: fills the reply's body and returns its length, or throws. */
export type Handler = (request: Request, reply: Reply) => number;
