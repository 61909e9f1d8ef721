/** What a worker does with locks: it hands them over to the thread that keeps them all (lock-keeper.ts), and waits for nothing. */
import { flushIn, interruptIn, lockIn, operation } from '../protocol.ts';
import { bodyAt, noReply, type Handler } from '../request.ts';
import type { Session } from '../session.ts';
import type { LockedRange, LockType } from './description-locks.ts';

export interface LockRequest {
  readonly kind: 'test' | 'set';
  /** Whether it is answered when it is held, and not before. */
  readonly waits: boolean;
  /** Of the request, which is not answered yet. */
  readonly unique: bigint;
  readonly node: number;
  readonly handle: string;
  readonly owner: bigint;
  readonly pid: number;
  readonly range: LockedRange;
}

export type LockMessage =
  | LockRequest
  /** A descriptor is closed by a process, whose locks of the file end then. To be answered. */
  | {
      readonly kind: 'flush';
      readonly unique: bigint;
      readonly node: number;
      readonly handle: string;
      readonly owner: bigint;
    }
  /** An open file is closed for good. */
  | { readonly kind: 'release'; readonly node: number; readonly handle: string }
  | { readonly kind: 'interrupt'; readonly unique: bigint };

/** What a handle is called here. */
export function lockHandleOf(slot: number, serial: number): string {
  return `${slot}:${serial}`;
}

export function lockOperations(
  session: Session,
  handOver: (message: LockMessage) => void,
): ReadonlyArray<readonly [number, Handler]> {
  const lock =
    (kind: 'test' | 'set', waits: boolean): Handler =>
    (request) => {
      const { handle, owner, pid, start, end, type } = lockIn.parse(request.bytes, bodyAt);
      const { node, unique } = request;
      const range = { start, end, type: type as LockType };
      handOver({ kind, waits, unique, node, handle: nameOf(handle), owner, pid, range });
      return noReply;
    };
  return [
    [operation.getLock, lock('test', false)],
    [operation.setLock, lock('set', false)],
    [operation.setLockWaiting, lock('set', true)],
    [
      operation.flush,
      (request) => {
        const { node, unique } = request;
        if (!session.nodes.isLocked(node)) return 0;
        const { handle, lockOwner } = flushIn.parse(request.bytes, bodyAt);
        handOver({ kind: 'flush', unique, node, handle: nameOf(handle), owner: lockOwner });
        return noReply;
      },
    ],
    [
      operation.interrupt,
      (request) => {
        handOver({ kind: 'interrupt', unique: interruptIn.parse(request.bytes, bodyAt).unique });
        return noReply;
      },
    ],
  ];
}

function nameOf(handle: bigint): string {
  return lockHandleOf(Number(BigInt.asUintN(32, handle)), Number(handle >> 32n));
}
