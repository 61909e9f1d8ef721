/**
 * A folder is served once: two servers of one disk would each keep to themselves what they know of it.
 *
 * The folder itself is locked. That holds for every path that leads to it, for every user and in every namespace, and ends with the process.
 * For folders inside it and around it each server keeps a claim, a small file that it has locked, which says where the folder lies on its
 * file system (origin.ts). A claim that nobody has locked is a dead server's, and removed.
 */
import { randomBytes } from 'node:crypto';
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { UsageError } from '../base/errors.ts';
import { tryLock, waitForLock } from '../base/file-lock.ts';
import { closeAll, type Closable } from '../base/ownership.ts';
import { isEnding, stateFolder } from './mount-record.ts';
import { isMountpoint } from './mountpoint.ts';
import { originOf, overlap, type Origin } from './origin.ts';

const schema = z.object({
  pid: z.number().int().positive(),
  folder: z.string(),
  origin: z.object({ device: z.string(), path: z.string() }),
  /** Absent: jobs on some of its disks, which may run beside each other. */
  mountpoint: z.string().optional(),
});
type Claim = z.infer<typeof schema>;

const claimSuffix = '.folder';
/** A server that was killed lets go when its last thread has ended, and a job soon; whoever has the folder afterwards keeps it. */
const letsGoWithinMs = 2000;
const lookEveryMs = 20;

/**
 * Takes the folder for this process, until it is closed.
 * @param folder absolute, with no symbolic links
 * @param mountpoint where it is to be served; undefined for a job on one of its disks
 * @throws UsageError that names the mount that serves it, one inside it, or one around it
 */
export async function takeFolder(folder: string, mountpoint: string | undefined): Promise<Closable> {
  const claim = { pid: process.pid, folder, origin: originOf(folder), mountpoint };
  for (const endsBy = performance.now() + letsGoWithinMs; ;) {
    const taken = tryToTake(claim);
    if ('close' in taken) return taken;
    const { holder } = taken;
    if (!maySoonEnd(holder) || performance.now() > endsBy) throw new UsageError(whyTaken(folder, holder));
    await sleep(lookEveryMs);
  }
}

/** Whoever has the folder, or one inside or around it: what is known of him. */
type Holder = Partial<Claim>;

function tryToTake(claim: Claim): Closable | { readonly holder: Holder } {
  const held: Closable[] = [];
  const state = stateFolder();
  const stateFd = openFolder(state);
  try {
    // Looking and claiming are one.
    waitForLock(stateFd);
    const holder = claimsIn(state).find((other) => isInTheWay(other, claim.origin, claim.mountpoint));
    if (holder !== undefined) return { holder };
    const folderFd = openFolder(claim.folder);
    held.push({ close: () => fs.closeSync(folderFd) });
    // Where folders have no locks, claims must do.
    if (tryLock(folderFd, claim.mountpoint === undefined ? 'shared' : 'exclusive') === 'taken') {
      const pid = lockerOf(folderFd);
      closeAll(held);
      return { holder: pid === undefined ? {} : { pid } };
    }
    held.push(writeClaim(state, claim));
    return { close: () => closeAll(held.splice(0)) };
  } catch (error) {
    closeAll(held);
    throw error;
  } finally {
    fs.closeSync(stateFd);
  }
}

/** A job may be done in a moment; a server that is dying, or whose mount was taken away, is gone in one. */
function maySoonEnd({ pid, mountpoint }: Holder): boolean {
  return pid === undefined || mountpoint === undefined || isEnding(pid) || !isMountpoint(mountpoint);
}

function isInTheWay(other: Claim, origin: Origin, mountpoint: string | undefined): boolean {
  return (mountpoint !== undefined || other.mountpoint !== undefined) && overlap(other.origin, origin);
}

function whyTaken(folder: string, { pid, folder: other, mountpoint }: Holder): string {
  const rule = 'a folder is served once, so use that, or unmount it first';
  if (mountpoint === undefined)
    return `${folder}: process ${pid ?? 'of another user'} serves it already, or works on its disks; wait for it or stop it`;
  if (other === undefined || other === folder) return `${folder}: is served at ${mountpoint} already; ${rule}`;
  return `${folder}: is served in part, or with more around it, as ${other} at ${mountpoint} already; ${rule}`;
}

/** The claims of living servers and jobs. */
function claimsIn(state: string): Claim[] {
  const files = fs.readdirSync(state).filter((name) => name.endsWith(claimSuffix));
  return files.flatMap((name) => {
    const file = path.join(state, name);
    const text = textOfLocked(file);
    if (text === undefined) fs.rmSync(file, { force: true });
    return text === undefined ? [] : [schema.parse(JSON.parse(text))];
  });
}

/** Undefined where nobody has it locked. */
function textOfLocked(file: string): string | undefined {
  let fd: number;
  try {
    fd = fs.openSync(file, 'r');
  } catch {
    // Given back this moment.
    return undefined;
  }
  try {
    return tryLock(fd, 'shared') === 'held' ? undefined : fs.readFileSync(fd, 'utf8');
  } finally {
    fs.closeSync(fd);
  }
}

function writeClaim(state: string, claim: Claim): Closable {
  const file = path.join(state, `${process.pid}-${randomBytes(6).toString('hex')}${claimSuffix}`);
  const fd = fs.openSync(file, 'wx', 0o600);
  tryLock(fd, 'exclusive');
  fs.writeFileSync(fd, JSON.stringify(claim));
  return {
    close() {
      fs.rmSync(file, { force: true });
      fs.closeSync(fd);
    },
  };
}

function openFolder(folder: string): number {
  return fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
}

/** The process that has a folder locked, as /proc/locks tells: "1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF". */
function lockerOf(fd: number): number | undefined {
  const { ino } = fs.fstatSync(fd, { bigint: true });
  const fields = fs
    .readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .map((line) => line.split(/\s+/))
    .find(([, kind, , , , file]) => kind === 'FLOCK' && file?.endsWith(`:${ino}`) === true);
  const pid = Number(fields?.[4]);
  return pid > 0 ? pid : undefined;
}
