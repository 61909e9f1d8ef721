/**
 * Whoever sent a request: the kernel's header has the user and the group, `/proc` the supplementary groups. Of a process that is in another
 * PID namespace (its number is 0 then), or that acts as somebody else than itself (a kernel's NFS server), no further groups are known.
 */
import * as fs from '../../base/fs.ts';
import { systemErrorCode } from '../../base/errors.ts';
import { withIdentity, type Identity } from '../../base/identity.ts';
import type { Rights } from '../rights.ts';
import type { Request } from './request.ts';

/** Long enough that a burst of calls asks once; as long as the kernel may believe attributes. */
const groupsValidMs = 100;
const maxRemembered = 256;
const noGroups: readonly number[] = [];

interface Remembered {
  readonly identity: Identity;
  readonly atMs: number;
}

/** The rights of the caller of the request that a worker is answering, where root serves others; its own elsewhere. */
export class CallerRights implements Rights {
  readonly #request: Request;
  readonly #servesOthers = process.getuid?.() === 0;
  readonly #remembered = new Map<string, Remembered>();

  /** @param request the worker's one, in which each comes */
  constructor(request: Request) {
    this.#request = request;
  }

  asCaller<T>(action: () => T): T {
    const { uid, gid, pid } = this.#request;
    if (!this.#servesOthers || (uid === 0 && gid === 0)) return action();
    const key = `${pid}:${uid}:${gid}`;
    const known = this.#remembered.get(key);
    if (known !== undefined && performance.now() - known.atMs < groupsValidMs) {
      try {
        return withIdentity(known.identity, action);
      } catch (error) {
        // The process may have got a group since.
        if (!isRefusal(error)) throw error;
      }
    }
    const identity = { uid, gid, groups: groupsOf(pid, uid, gid) };
    if (this.#remembered.size >= maxRemembered) this.#remembered.clear();
    this.#remembered.set(key, { identity, atMs: performance.now() });
    return withIdentity(identity, action);
  }
}

function isRefusal(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === 'EACCES' || code === 'EPERM';
}

/** Supplementary groups of a process, or a thread, that waits for its answer meanwhile, and so keeps its number. */
function groupsOf(pid: number, uid: number, gid: number): readonly number[] {
  if (pid === 0) return noGroups;
  let status: string;
  try {
    status = fs.readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return noGroups;
  }
  // The last of real, effective, saved and that of the file system.
  if (idsOf(status, 'Uid')[3] !== uid || idsOf(status, 'Gid')[3] !== gid) return noGroups;
  return idsOf(status, 'Groups');
}

function idsOf(status: string, field: string): number[] {
  const start = status.indexOf(`\n${field}:`);
  if (start < 0) return [];
  const line = status.slice(start + field.length + 2, status.indexOf('\n', start + 1));
  return line.trim() === '' ? [] : line.trim().split(/\s+/).map(Number);
}
