/**
 * Whose rights the system calls of this thread have. Linux keeps them for each thread: a thread of root may do a call with the rights of
 * somebody else, so that the kernel itself decides what he may, and the next one with its own again.
 *
 * Only what decides on files changes (fsuid, fsgid, supplementary groups, and with the fsuid the capabilities over files). glibc's own
 * setgroups would change all threads of the process: the bare system call changes one.
 */
import koffi from 'koffi';
import { assert, ForbiddenError } from './errors.ts';

export interface Identity {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly groups: readonly number[];
}

/** Whom nothing belongs to. */
export const nobody: Identity = { uid: 65534, gid: 65534, groups: [] };

/** setgroups(2), by the names that Node has for machines. */
const setgroupsNumbers: Readonly<Record<string, number>> = {
  x64: 116,
  arm64: 159,
  riscv64: 159,
  loong64: 159,
  ppc64: 81,
  s390x: 206,
};
const setgroupsNumber = setgroupsNumbers[process.arch];
/** Asks setfsuid and setfsgid what is in force: no user or group has this number. */
const noId = 0xffffffff;
/** Of capget(2) and capset(2): two words for each of effective, permitted and inheritable, as {effective, permitted, inheritable} twice. */
const capabilityVersion3 = 0x20080522;
const CAP_SYS_RESOURCE = 24;

const libc = koffi.load(null);
const setfsuid = libc.func('uint setfsuid(uint uid)') as (uid: number) => number;
const setfsgid = libc.func('uint setfsgid(uint gid)') as (gid: number) => number;
const getgroups = libc.func('int getgroups(int size, _Out_ uint32_t *groups)') as (
  size: number,
  groups: Uint32Array | null,
) => number;
const setgroups = libc.func('long syscall(long number, size_t size, const uint32_t *groups)') as (
  number: number,
  size: number,
  groups: Uint32Array,
) => number;
const capget = libc.func('int capget(const uint32_t *header, _Out_ uint32_t *data)') as (
  header: Uint32Array,
  data: Uint32Array,
) => number;
const capset = libc.func('int capset(const uint32_t *header, const uint32_t *data)') as (
  header: Uint32Array,
  data: Uint32Array,
) => number;

/** Of this process, for as long as it runs: what a thread goes back to. */
const own: Identity = { uid: process.getuid?.() ?? noId, gid: process.getgid?.() ?? noId, groups: ownGroups() };
let groups = own.groups;
let isBorrowed = false;

/**
 * Runs system calls with somebody's rights, and goes back to its own before anything else runs. A thread that cannot go back ends.
 * @throws what `action` throws; ForbiddenError where the system does not let the thread act as somebody else: nothing ran then
 */
export function withIdentity<T>(identity: Identity, action: () => T): T {
  assert(!isBorrowed, 'a thread acts as two users at once');
  isBorrowed = true;
  try {
    if (!assume(identity)) {
      const { uid, gid } = identity;
      throw new ForbiddenError(`user ${uid}, group ${gid}: the system does not let this process act with their rights`);
    }
    return action();
  } finally {
    if (!restore()) process.exit(1);
    isBorrowed = false;
  }
}

/** Whether this process may act as others. Root in a container may be without the right to. */
export function mayActAsOthers(): boolean {
  if (own.uid !== 0) return false;
  try {
    return withIdentity(nobody, () => true);
  } catch {
    return false;
  }
}

/**
 * From now on the limits of a file system hold for this thread (quotas, room that is reserved): what it does for others would pass them with
 * root's exception.
 */
export function keepWithinLimits(): void {
  const header = Uint32Array.of(capabilityVersion3, 0);
  const sets = new Uint32Array(6);
  if (capget(header, sets) !== 0) return;
  sets[0] = ((sets[0] ?? 0) & ~(2 ** CAP_SYS_RESOURCE)) >>> 0;
  capset(header, sets);
}

/** In this order: without root's rights none of the others can be changed. False where something could not be taken on. */
function assume(identity: Identity): boolean {
  return changeGroups(identity.groups) && become(setfsgid, identity.gid) && become(setfsuid, identity.uid);
}

function restore(): boolean {
  return become(setfsuid, own.uid) && become(setfsgid, own.gid) && changeGroups(own.groups);
}

/** These calls have no errors, and fail where memory is short: a second one says what is in force. */
function become(set: (id: number) => number, id: number): boolean {
  set(id);
  return set(noId) === id;
}

function changeGroups(to: readonly number[]): boolean {
  if (isSame(groups, to)) return true;
  if (setgroupsNumber === undefined || setgroups(setgroupsNumber, to.length, Uint32Array.from(to)) !== 0) return false;
  groups = to;
  return true;
}

function isSame(some: readonly number[], others: readonly number[]): boolean {
  return some.length === others.length && some.every((id, index) => id === others[index]);
}

function ownGroups(): readonly number[] {
  const count = getgroups(0, null);
  const groups = new Uint32Array(Math.max(0, count));
  return count > 0 && getgroups(count, groups) === count ? [...groups] : [];
}
