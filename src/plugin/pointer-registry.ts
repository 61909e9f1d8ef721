/**
 * Plugin files that point into another folder than their own, as that folder knows them: `.veneer-pointers` beside the images and disk files, a JSON line for
 * each. So whoever removes images there finds who needs them, mounted or not.
 *
 * A line whose plugin file is gone is dropped. One whose file system is away is not: what cannot be looked at may still need its image.
 * Lines are added and dropped under the lock of the file. Dropping puts another file in its place, and whoever waited opens that one. Whoever owns
 * the folder may write lines there, too, and plant what he likes under the name: nothing is added to a file that is another's, or has another name.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { z } from 'zod';
import { flushFile, syncFolder, writeFileDurably } from '../base/durable.ts';
import { fileModes } from '../base/file-modes.ts';
import { ForbiddenError, systemErrorCode, UnavailableError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { tryLock } from '../base/file-lock.ts';
import { writeFully } from '../base/full-io.ts';
import { openRegular } from '../base/regular-file.ts';
import { isSameFile } from '../base/same-file.ts';
import { formatBytes, MiB } from '../base/units.ts';
import type { Guid } from '../bytes/guid.ts';
import type { SourcePointer } from './plugin-file.ts';

const registryName = '.veneer-pointers';
const maxRegistryBytes = 16 * MiB;
const lockAttempts = 500;
const lockEveryMs = 10;
/** What a folder answers that cannot be written to, or where something else has the name. */
const refusals = ['EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ELOOP', 'EISDIR', 'ENXIO'];
const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR, O_RDONLY } = fs.constants;

const schema = z.object({
  /** Absolute, and under no mount. */
  plugin: z.string(),
  /** Names of the sources' bytes: images, or disk files as they were. */
  images: z.array(z.string()),
  /** The file system that the plugin file's folder was on. */
  device: z.string(),
});
export type RegisteredPointer = z.infer<typeof schema>;

/**
 * Tells the folders of a plugin file's sources of it, where they are not its own. Comes before the plugin file is there.
 * @param pluginPath absolute, and under no mount
 * @param waits whether a lock that somebody has is waited for
 * @returns the folders that could not be told: they cannot be written to, or somebody else has what would be written to
 */
export function registerPointers(pluginPath: string, pointers: readonly SourcePointer[], waits = true): string[] {
  const home = path.dirname(pluginPath);
  const stat = fs.statSync(home, { throwIfNoEntry: false });
  // Whoever writes the plugin file tells what is wrong.
  if (stat === undefined) return [];
  const device = String(stat.dev);
  const byFolder = Map.groupBy(pointers, (pointer) => path.dirname(absolutePath(home, pointer.path)));
  return [...byFolder].flatMap(([folder, inFolder]) => {
    if (isSameFile(folder, home)) return [];
    const line: RegisteredPointer = { plugin: pluginPath, images: inFolder.map(({ id }) => id), device };
    return append(path.join(folder, registryName), line, waits) ? [] : [folder];
  });
}

/**
 * The plugin files elsewhere that an image folder knows of, but for those that are gone: these are dropped.
 * @param stillPoints whether a plugin file that is there points to one of these images
 */
export function registeredPointers(
  folder: string,
  stillPoints: (plugin: string, images: readonly Guid[]) => boolean,
): RegisteredPointer[] {
  const file = path.join(folder, registryName);
  const lines = linesOf(file);
  const isLiving = (line: RegisteredPointer): boolean => !isGone(line) && mayPoint(line, stillPoints);
  if (!lines.every(isLiving)) drop(file, isLiving);
  return lines.filter(isLiving);
}

/** A plugin file that is not there for the moment is taken at its word. */
function mayPoint(
  { plugin, images }: RegisteredPointer,
  stillPoints: (plugin: string, images: readonly Guid[]) => boolean,
): boolean {
  return !fs.existsSync(plugin) || stillPoints(plugin, images);
}

/** Whether nothing has its name, in the file system where it was. */
function isGone({ plugin, device }: RegisteredPointer): boolean {
  if (fs.existsSync(plugin)) return false;
  for (let folder = path.dirname(plugin); ; folder = path.dirname(folder)) {
    const stat = fs.statSync(folder, { throwIfNoEntry: false });
    if (stat !== undefined) return String(stat.dev) === device;
    if (folder === path.dirname(folder)) return false;
  }
}

/**
 * What is no line of ours is passed over.
 * @throws UnavailableError where there is more than is read, or it cannot be read: somebody may be needed that is not known then
 */
function linesOf(file: string): RegisteredPointer[] {
  let fd: number;
  try {
    fd = openRegular(file, O_RDONLY);
  } catch (error) {
    if (error instanceof ForbiddenError || ['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')) return [];
    throw new UnavailableError(`${file}: cannot be opened, and says which images others need`, { cause: error });
  }
  try {
    if (fs.fstatSync(fd).size > maxRegistryBytes)
      throw new UnavailableError(
        `${file}: has more than ${formatBytes(maxRegistryBytes)} of lines that say which images others need; take out those that nobody needs`,
      );
    return fs
      .readFileSync(fd, 'utf8')
      .split('\n')
      .flatMap((text) => lineOf(text));
  } finally {
    fs.closeSync(fd);
  }
}

function lineOf(text: string): RegisteredPointer[] {
  try {
    const { data } = schema.safeParse(JSON.parse(text));
    return data === undefined ? [] : [data];
  } catch {
    return [];
  }
}

/** @returns false where the folder cannot be written to, or what has the name there is not to be written to */
function append(file: string, line: RegisteredPointer, waits: boolean): boolean {
  try {
    const known = linesOf(file).some(
      ({ plugin, images }) => plugin === line.plugin && line.images.every((image) => images.includes(image)),
    );
    if (known) return true;
    const isDone = locked(file, waits ? lockAttempts : 1, (fd) => {
      const { size } = requireOurs(fd, file);
      // A line that a crash cut off ends here.
      const last = Buffer.alloc(1);
      const torn = size > 0 && fs.readSync(fd, last, 0, 1, size - 1) === 1 && last.toString() !== '\n';
      const text = Buffer.from(`${torn ? '\n' : ''}${JSON.stringify(line)}\n`);
      if (size + text.length > maxRegistryBytes) throw new ForbiddenError(`${file}: is full`);
      writeFully(fd, text, 0, file);
      flushFile(fd, file);
    });
    if (!isDone && waits) throw lockedByOther(file);
    if (isDone) syncFolder(path.dirname(file));
    return isDone;
  } catch (error) {
    if (error instanceof ForbiddenError || refusals.includes(systemErrorCode(causeOf(error)) ?? '')) return false;
    throw error;
  }
}

function causeOf(error: unknown): unknown {
  return error instanceof UnavailableError ? error.cause : error;
}

/** @throws ForbiddenError for a file of somebody who does not own the folder, and for one that has another name as well */
function requireOurs(fd: number, file: string): fs.Stats {
  const stat = fs.fstatSync(fd);
  const owners = [process.geteuid?.(), 0, fs.statSync(path.dirname(file)).uid];
  if (stat.isFile() && stat.nlink === 1 && owners.includes(stat.uid)) return stat;
  throw new ForbiddenError(`${file}: is somebody else's, or has another name as well; move it away`);
}

/** Lines stay that are worth nothing, where the folder cannot be written to. */
function drop(file: string, isLiving: (line: RegisteredPointer) => boolean): void {
  try {
    locked(file, lockAttempts, () => {
      const kept = linesOf(file).filter(isLiving);
      writeFileDurably(
        file,
        Buffer.from(kept.map((line) => `${JSON.stringify(line)}\n`).join('')),
        fileModes.pluginFile,
      );
    });
  } catch {
    // The next one tries again.
  }
}

/** @returns false when its lock is not to be had. @throws the system's error when it cannot be opened */
function locked(file: string, attempts: number, action: (fd: number) => void): boolean {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let attempt = 1; ; attempt++) {
    const fd = fs.openSync(file, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, fileModes.pluginFile);
    try {
      if (tryLock(fd, 'exclusive') !== 'taken' && isSameFile(file, `/proc/self/fd/${fd}`)) {
        action(fd);
        return true;
      }
    } finally {
      fs.closeSync(fd);
    }
    if (attempt >= attempts) return false;
    Atomics.wait(pause, 0, 0, lockEveryMs);
  }
}

function lockedByOther(file: string): UnavailableError {
  return new UnavailableError(`${file}: another process has it locked; try again in a moment`, { retryable: true });
}
