/** The mountpoint: what it must be before a mount, whether it is mounted now, and how it is unmounted. */
import { execFile, spawnSync } from 'node:child_process';
import * as fs from '../base/fs.ts';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { commandOf } from '../base/byte-arguments.ts';
import { inOneLine, systemErrorCode, UnavailableError, UsageError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { mountLines, type MountLine } from '../base/mount-points.ts';
import { unmountAsRoot } from '../base/system-calls.ts';
import { findRecord, isEnding } from './mount-record.ts';

const run = promisify(execFile);
const fuseDevice = '/dev/fuse';
/** Of our mounts, as the system lists them. */
const mountType = 'fuse.veneer';
const diesWithinMs = 2000;
const answersWithinMs = 2000;
const busyMs = 1000;
const lookEveryMs = 20;

/**
 * Checks folder and mountpoint, and clears away a mount whose process has died.
 * @returns both as absolute paths with no symbolic links
 * @throws UsageError that says what to do
 */
export async function prepareMount(
  folder: string,
  mountpoint: string,
): Promise<{ folder: string; mountpoint: string }> {
  requireFuse();
  await unmountIfDead(absolutePath(mountpoint));
  const real = { folder: realFolder(folder, 'the folder'), mountpoint: realFolder(mountpoint, 'the mountpoint') };
  if (real.folder === real.mountpoint || isInside(real.mountpoint, real.folder)) {
    throw new UsageError(`${mountpoint}: lies inside the folder ${folder}; choose a mountpoint elsewhere`);
  }
  if (isInside(real.folder, real.mountpoint)) {
    throw new UsageError(
      `${mountpoint}: contains the folder ${folder}, which it would hide; choose a mountpoint elsewhere`,
    );
  }
  if (isMountpoint(real.mountpoint)) {
    throw new UsageError(
      `${mountpoint}: something is mounted there already; unmount it (veneer unmount ${mountpoint}) or choose another`,
    );
  }
  if (fs.readdirSync(real.mountpoint).length > 0) {
    throw new UsageError(`${mountpoint}: is not empty; choose an empty folder as mountpoint`);
  }
  return real;
}

/** Whether a file system is mounted exactly there. Reads /proc, never the mount itself. */
export function isMountpoint(absolute: string): boolean {
  return mountLine(absolute) !== undefined;
}

/** The number of the FUSE connection that is mounted there: the minor part of the mount's device number. */
export function connectionOf(absolute: string): number | undefined {
  const minor = mountLine(absolute)?.device.split(':')[1];
  return minor === undefined ? undefined : Number(minor);
}

/** Where Veneer's file systems are mounted, of whichever process. */
export function veneerMountpoints(): ReadonlySet<string> {
  return new Set(mountLines().flatMap(({ type, mountpoint }) => (type === mountType ? [mountpoint] : [])));
}

/** The last mount there. */
function mountLine(absolute: string): MountLine | undefined {
  return mountLines().findLast(({ mountpoint }) => mountpoint === absolute);
}

/**
 * Unmounts: root by itself, others through fusermount3. `lazily` takes the mount out of the tree at once, though files in it are still open. Who
 * only looks in (a file manager, a monitor that asks for free space) makes it busy for a moment, which is waited for.
 * @throws UsageError when it stays busy, or is not mounted
 */
export async function unmount(absolute: string, lazily: boolean): Promise<void> {
  for (const endsBy = performance.now() + busyMs; ;) {
    try {
      await unmountNow(absolute, lazily);
      return;
    } catch (error) {
      const reason = error instanceof Error && 'stderr' in error ? inOneLine(String(error.stderr)) : '';
      const isBusy = /busy/i.test(reason) || systemErrorCode(error) === 'EBUSY';
      if (!isBusy) throw new UsageError(`${absolute}: cannot be unmounted: ${reason === '' ? String(error) : reason}`);
      if (performance.now() > endsBy)
        throw new UsageError(
          `${absolute}: is busy; close what uses it (see: fuser -vm ${absolute}), or unmount with --lazy`,
        );
    }
    await sleep(lookEveryMs);
  }
}

async function unmountNow(absolute: string, lazily: boolean): Promise<void> {
  if (process.getuid?.() === 0) {
    unmountAsRoot(absolute, lazily);
    return;
  }
  const { program, args } = commandOf(await fusermount(), ['-u', ...(lazily ? ['-z'] : []), '--', absolute]);
  await run(program, args);
}

/**
 * A mount that nobody serves answers ENOTCONN to everything; ECONNABORTED at the moment when it dies. One that is served may be stuck and
 * answer nothing: where no record says that somebody serves it, a process that can be killed asks.
 */
export function isDeadMount(absolute: string): boolean {
  if (!isMountpoint(absolute) || findRecord(absolute) !== undefined) return false;
  const { program, args } = commandOf('stat', ['--', absolute]);
  const asked = spawnSync(program, args, {
    env: { ...process.env, LC_ALL: 'C' },
    timeout: answersWithinMs,
    killSignal: 'SIGKILL',
    encoding: 'utf8',
  });
  return /not connected|connection abort/.test(asked.stderr);
}

/** A process that was killed lets go of its mount with its last thread: that is waited for. */
async function unmountIfDead(absolute: string): Promise<void> {
  for (const endsBy = performance.now() + diesWithinMs; ;) {
    while (isDeadMount(absolute)) await unmount(absolute, true);
    const server = findRecord(absolute)?.pid;
    const isDying = server === undefined || isEnding(server);
    if (!isDying || mountLine(absolute)?.type !== mountType || performance.now() > endsBy) return;
    await sleep(lookEveryMs);
  }
}

function requireFuse(): void {
  try {
    fs.accessSync(fuseDevice, fs.constants.R_OK | fs.constants.W_OK);
  } catch (error) {
    const what =
      systemErrorCode(error) === 'ENOENT'
        ? 'is not there; load the kernel module (modprobe fuse)'
        : 'may not be opened; run as root, or allow it';
    throw new UnavailableError(`${fuseDevice}: ${what}`);
  }
}

async function fusermount(): Promise<string> {
  for (const name of ['fusermount3', 'fusermount']) {
    try {
      await run(name, ['--version']);
      return name;
    } catch {
      // The next name.
    }
  }
  throw new UnavailableError('fusermount3: is not installed; install the package fuse3');
}

function realFolder(given: string, what: string): string {
  let real: string;
  try {
    real = fs.realpathSync(given);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT')
      throw new UsageError(`${given}: ${what} does not exist; create it (mkdir -p ${given})`);
    throw new UnavailableError(`${given}: ${what} cannot be reached`, { cause: error });
  }
  if (!fs.statSync(real).isDirectory()) throw new UsageError(`${given}: ${what} is not a folder`);
  return real;
}

function isInside(inner: string, outer: string): boolean {
  return inner.startsWith(outer.endsWith('/') ? outer : `${outer}/`);
}
