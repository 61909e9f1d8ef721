/**
 * Locks of byte ranges (fcntl) that programs take through the mount. Kept by the main thread alone: workers hand over what the kernel asks, and
 * are free at once; here it is answered, now or when somebody else has let go. Who waits is tried again when a lock ends under the mount, and
 * now and then, since one behind it ends unheard. Two who wait for each other are not noticed (EDEADLK): one must be interrupted.
 *
 * The kernel tells of the end of a process's locks by FLUSH, at each close, and of those of an open file description by RELEASE alone, some time
 * after the last close. A lock whose handle was flushed just now may be at its end: who meets one is let wait for a moment before he is refused.
 */
import { memoryFile } from '../../../base/system-calls.ts';
import * as fs from '../../../base/fs.ts';
import { systemError } from '../../../base/system-error.ts';
import { constants } from 'node:os';
import { errnoOf } from '../../errno.ts';
import { lockType, type LockedRange } from './description-locks.ts';
import type { LockMessage, LockRequest } from './lock-operations.ts';
import { OwnerLocks, type Carrier } from './owner-locks.ts';

const { EAGAIN, EINTR } = constants.errno;
/** How long one who is refused waits for a handle that may be closing. */
const closingMs = 250;
const flushedLatelyMs = 1000;
const retryEveryMs = 25;
/** Each has a descriptor or two. */
const maxOwners = 2 ** 14;
/** Interrupts that came before what they are for. */
const maxEarly = 256;

/** What carries the file of a node. */
export interface Carried {
  /** The file itself; undefined where it is made, and nothing behind is it. */
  readonly own: Carrier | undefined;
  /** Of a native file that may be written: what its replacement is known by. */
  readonly diskKey: string | undefined;
}

export interface LockKeeperContext {
  carried(node: number): Carried;
  /** From now on `FLUSH` and `RELEASE` of the node are told, or not any more. */
  setLocked(node: number, isLocked: boolean): void;
  /** @param errno 0 for success @param conflict of a request that asks for one */
  answer(channel: number, unique: bigint, errno: number, conflict?: LockedRange & { readonly pid: number }): void;
  complain(error: unknown): void;
}

interface NodeLocks {
  readonly node: number;
  readonly diskKey: string | undefined;
  readonly owners: Map<bigint, OwnerLocks>;
  carriers: readonly Carrier[];
  /** Where no file behind carries it. */
  readonly memoryFd: number | undefined;
}

interface Waiting {
  readonly channel: number;
  readonly request: LockRequest;
  /** When it is refused; undefined: never. */
  readonly untilMs: number | undefined;
}

export class LockKeeper {
  readonly #context: LockKeeperContext;
  readonly #nodes = new Map<number, NodeLocks>();
  readonly #replacements = new Map<string, Carrier>();
  readonly #early = new Set<bigint>();
  #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(context: LockKeeperContext) {
    this.#context = context;
  }

  /** @param channel that it came on, and is answered on */
  handle(channel: number, message: LockMessage): void {
    switch (message.kind) {
      case 'interrupt':
        this.#interrupt(message.unique);
        return;
      case 'flush':
        this.#drop(message.node, (owner, locks) => {
          if (locks.handles.has(message.handle)) locks.handles.set(message.handle, performance.now());
          return owner === message.owner;
        });
        this.#context.answer(channel, message.unique, 0);
        return;
      case 'release':
        this.#drop(message.node, (_owner, locks) => locks.handles.has(message.handle));
        return;
      default:
        this.#begun(channel, message);
    }
  }

  /** A native file's replacement is open: from now on it carries the locks, too. Called before anything is written to it. */
  carry(diskKey: string, dataFd: number): void {
    const carrier = pathOf(dataFd);
    if (this.#replacements.get(diskKey) === carrier) return;
    this.#replacements.set(diskKey, carrier);
    for (const locks of this.#nodes.values()) if (locks.diskKey === diskKey) this.#add(locks, carrier);
  }

  /** The disk file has taken the native file's place. @param fd of the disk file, held for as long as the mount lives */
  placed(node: number, fd: number): void {
    const locks = this.#nodes.get(node);
    if (locks === undefined) return;
    const carrier = pathOf(fd);
    this.#add(locks, carrier);
    for (const owner of locks.owners.values()) if (owner.isOn(carrier)) owner.leaveFor(carrier);
    locks.carriers = [carrier];
  }

  /** Whether a request that came on a channel is not answered yet. */
  waitsOn(channel: number): boolean {
    return this.#waiting.some((waiting) => waiting.channel === channel);
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const locks of this.#nodes.values()) this.#end(locks);
  }

  #begun(channel: number, request: LockRequest): void {
    const outcome = this.#try(channel, request, false);
    if (outcome === 'answered') return;
    if (this.#early.delete(request.unique)) this.#context.answer(channel, request.unique, EINTR);
    else if (!request.waits && outcome === 'taken') this.#context.answer(channel, request.unique, EAGAIN);
    else this.#waiting.push({ channel, request, untilMs: request.waits ? undefined : performance.now() + closingMs });
    this.#keepTime();
  }

  /** @param isLast whether it is answered now in any case */
  #try(channel: number, request: LockRequest, isLast: boolean): 'answered' | 'closing' | 'taken' {
    try {
      const outcome = request.kind === 'test' ? this.#test(request, isLast) : this.#set(request);
      if (outcome === 'done') this.#context.answer(channel, request.unique, 0);
      else if (typeof outcome === 'object') this.#context.answer(channel, request.unique, 0, outcome);
      else if (isLast) this.#context.answer(channel, request.unique, EAGAIN);
      else return outcome;
    } catch (error) {
      this.#context.answer(channel, request.unique, errnoOf(error));
    }
    return 'answered';
  }

  /** @param isLast whether it is answered now in any case */
  #test({ node, owner, range }: LockRequest, isLast: boolean): (LockedRange & { pid: number }) | 'closing' {
    const locks = this.#nodes.get(node) ?? this.#begin(node);
    const own = locks.owners.get(owner);
    const asking = own ?? new OwnerLocks(locks.carriers);
    try {
      const found = asking.conflict(range);
      if (found === undefined) return { ...range, type: lockType.none, pid: 0 };
      const others = this.#inTheWay(locks, owner, range);
      if (!isLast && mayBeOver(others)) return 'closing';
      const [holder] = others.filter((other) => [...other.ranges].some((held) => held.start === found.start));
      return { ...found, pid: holder?.pid ?? Math.max(0, found.pid) };
    } finally {
      if (own === undefined) asking.close();
      if (locks.owners.size === 0) this.#end(locks);
    }
  }

  #set(request: LockRequest): 'done' | 'closing' | 'taken' {
    const { node, owner, range, handle, pid } = request;
    const known = this.#nodes.get(node);
    if (range.type === lockType.none && known?.owners.has(owner) !== true) return 'done';
    const locks = known ?? this.#begin(node);
    try {
      const own = locks.owners.get(owner) ?? this.#owner(locks, owner);
      if (!own.set(range)) return mayBeOver(this.#inTheWay(locks, owner, range)) ? 'closing' : 'taken';
      own.handles.set(handle, 0);
      own.pid = pid;
      this.#context.setLocked(node, true);
      if (range.type !== lockType.write) this.#retry(node);
      return 'done';
    } finally {
      this.#drop(node, (_owner, { ranges }) => ranges.isEmpty);
    }
  }

  #owner(locks: NodeLocks, owner: bigint): OwnerLocks {
    let owners = 0;
    for (const other of this.#nodes.values()) owners += other.owners.size;
    if (owners >= maxOwners) throw systemError('ENOLCK', 'fcntl', `${maxOwners} owners of locks`);
    const own = new OwnerLocks(locks.carriers);
    locks.owners.set(owner, own);
    return own;
  }

  #inTheWay(locks: NodeLocks, owner: bigint, range: LockedRange): OwnerLocks[] {
    return [...locks.owners].flatMap(([other, held]) =>
      other !== owner && held.ranges.conflictsWith(range) ? [held] : [],
    );
  }

  /** Ends the locks of some owners of a node. */
  #drop(node: number, isOver: (owner: bigint, locks: OwnerLocks) => boolean): void {
    const locks = this.#nodes.get(node);
    if (locks === undefined) return;
    const before = locks.owners.size;
    for (const [owner, held] of locks.owners) {
      if (!isOver(owner, held)) continue;
      locks.owners.delete(owner);
      held.close();
    }
    if (locks.owners.size === 0) this.#end(locks);
    if (locks.owners.size < before) this.#retry(node);
  }

  #begin(node: number): NodeLocks {
    const { own, diskKey } = this.#context.carried(node);
    const memoryFd = own === undefined ? memoryFile('veneer locks') : undefined;
    const data = diskKey === undefined ? undefined : this.#replacements.get(diskKey);
    const first = own ?? pathOf(memoryFd ?? -1);
    const carriers = data === undefined ? [first] : [first, data];
    const locks = { node, diskKey, owners: new Map<bigint, OwnerLocks>(), carriers, memoryFd };
    this.#nodes.set(node, locks);
    return locks;
  }

  #end(locks: NodeLocks): void {
    if (this.#nodes.get(locks.node) !== locks) return;
    this.#nodes.delete(locks.node);
    for (const held of locks.owners.values()) held.close();
    if (locks.memoryFd !== undefined) fs.closeSync(locks.memoryFd);
    this.#context.setLocked(locks.node, false);
  }

  #add(locks: NodeLocks, carrier: Carrier): void {
    if (locks.carriers.includes(carrier)) return;
    try {
      for (const owner of locks.owners.values())
        if (!owner.carry(carrier))
          throw systemError('EAGAIN', 'fcntl', 'the file of the writes is locked by another program');
      locks.carriers = [...locks.carriers, carrier];
    } catch (error) {
      // It is locked under the mount all the same.
      this.#context.complain(error);
    }
  }

  /** Those who came first, first. @param node of which somebody has let go; any, when absent */
  #retry(node?: number): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    const left = waiting.filter(({ channel, request, untilMs = Infinity }) => {
      if (node !== undefined && request.node !== node) return true;
      return this.#try(channel, request, performance.now() >= untilMs) !== 'answered';
    });
    this.#waiting = [...left, ...this.#waiting];
    this.#keepTime();
  }

  /** While anybody waits. */
  #keepTime(): void {
    if (this.#waiting.length > 0) {
      this.#timer ??= setInterval(() => this.#retry(), retryEveryMs);
      return;
    }
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #interrupt(unique: bigint): void {
    const index = this.#waiting.findIndex(({ request }) => request.unique === unique);
    const [found] = index < 0 ? [] : this.#waiting.splice(index, 1);
    if (found !== undefined) {
      this.#context.answer(found.channel, unique, EINTR);
      return;
    }
    // Its request may be on its way from another thread.
    this.#early.add(unique);
    const [oldest] = this.#early;
    if (this.#early.size > maxEarly && oldest !== undefined) this.#early.delete(oldest);
  }
}

/** Whether all handles that these owners have locked through were flushed lately, and not used for locks since. */
function mayBeOver(owners: readonly OwnerLocks[]): boolean {
  const sinceMs = performance.now() - flushedLatelyMs;
  return (
    owners.length > 0 && owners.every(({ handles }) => [...handles.values()].every((flushedMs) => flushedMs > sinceMs))
  );
}

function pathOf(fd: number): Carrier {
  return `/proc/self/fd/${fd}`;
}
