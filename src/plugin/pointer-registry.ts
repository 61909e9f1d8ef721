/**
 * Plugin files that point into another folder than their own, as that folder knows them: `.veneer-pointers` beside the images, a JSON line for
 * each. So whoever removes images there finds who needs them, mounted or not.
 *
 * A line whose plugin file is gone is dropped. One whose file system is away is not: what cannot be looked at may still need its image.
 * Lines are added and dropped under the lock of the file. Dropping puts another file in its place, and whoever waited opens that one.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { z } from 'zod';
import { flushFile, syncFolder, writeFileDurably } from '../base/durable.ts';
import { fileModes } from '../base/file-modes.ts';
import { isShortage, systemErrorCode, UnavailableError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { tryLock } from '../base/file-lock.ts';
import { writeFully } from '../base/full-io.ts';
import { isSameFile } from '../base/same-file.ts';
import type { Guid } from '../bytes/guid.ts';
import type { ImagePointer } from './bootable-schema.ts';

const registryName = '.veneer-pointers';
const maxRegistryBytes = 16 * 1024 * 1024;
const lockAttempts = 500;
const lockEveryMs = 10;
const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR, O_RDONLY } = fs.constants;

const schema = z.object({
  /** Absolute, and under no mount. */
  plugin: z.string(),
  images: z.array(z.string()),
  /** The file system that the plugin file's folder was on. */
  device: z.string(),
});
export type RegisteredPointer = z.infer<typeof schema>;

/**
 * Tells the folders of a plugin file's images of it, where they are not its own. Comes before the plugin file is there.
 * @param pluginPath absolute, and under no mount
 * @returns the folders that could not be told, since they cannot be written to
 */
export function registerPointers(pluginPath: string, images: readonly ImagePointer[]): string[] {
  const home = path.dirname(pluginPath);
  const stat = fs.statSync(home, { throwIfNoEntry: false });
  // Whoever writes the plugin file tells what is wrong.
  if (stat === undefined) return [];
  const device = String(stat.dev);
  const byFolder = Map.groupBy(images, (image) => path.dirname(absolutePath(home, image.path)));
  return [...byFolder].flatMap(([folder, inFolder]) => {
    if (isSameFile(folder, home)) return [];
    const line: RegisteredPointer = { plugin: pluginPath, images: inFolder.map(({ imageId }) => imageId), device };
    return append(path.join(folder, registryName), line) ? [] : [folder];
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

/** What is no line of ours is passed over. */
function linesOf(file: string): RegisteredPointer[] {
  let fd: number;
  try {
    fd = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (isShortage(error)) throw error;
    return [];
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() || stat.size > maxRegistryBytes) return [];
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

/** @returns false where the folder cannot be written to */
function append(file: string, line: RegisteredPointer): boolean {
  const known = linesOf(file).some(
    ({ plugin, images }) => plugin === line.plugin && line.images.every((image) => images.includes(image)),
  );
  if (known) return true;
  try {
    locked(file, (fd) => {
      // A line that a crash cut off ends here.
      const torn = fs.fstatSync(fd).size > 0 && !fs.readFileSync(file, 'utf8').endsWith('\n');
      writeFully(fd, Buffer.from(`${torn ? '\n' : ''}${JSON.stringify(line)}\n`), 0, file);
      flushFile(fd, file);
    });
    syncFolder(path.dirname(file));
    return true;
  } catch (error) {
    if (['EACCES', 'EPERM', 'EROFS', 'ENOENT'].includes(systemErrorCode(error) ?? '')) return false;
    throw error;
  }
}

/** Lines stay that are worth nothing, where the folder cannot be written to. */
function drop(file: string, isLiving: (line: RegisteredPointer) => boolean): void {
  try {
    locked(file, () => {
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

/** @throws the system's error when it cannot be opened; UnavailableError when its lock is not to be had */
function locked(file: string, action: (fd: number) => void): void {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let attempt = 0; attempt < lockAttempts; attempt++) {
    const fd = fs.openSync(file, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, fileModes.pluginFile);
    try {
      if (tryLock(fd, 'exclusive') !== 'taken' && isSameFile(file, `/proc/self/fd/${fd}`)) {
        action(fd);
        return;
      }
    } finally {
      fs.closeSync(fd);
    }
    Atomics.wait(pause, 0, 0, lockEveryMs);
  }
  throw new UnavailableError(`${file}: another process has it locked; try again in a moment`, { retryable: true });
}
