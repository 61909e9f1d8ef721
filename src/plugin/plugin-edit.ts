/**
 * A plugin file that a command changes. It is read once, and what was decided on is what is written over: a file that was changed or replaced
 * meanwhile is left as it is.
 *
 * Two commands that change one plugin file come one after the other: each holds its lock. Who does not lock (an editor, `plugin create --force`)
 * is noticed up to the moment in which the new file takes the name.
 */
import * as fs from '../base/fs.ts';
import { UnavailableError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { writeFileDurably, type FileOwner } from '../base/durable.ts';
import { tryLock } from '../base/file-lock.ts';
import type { Closable } from '../base/ownership.ts';
import {
  encodePluginFile,
  openPluginFile,
  parsePluginFile,
  readOpenPluginFile,
  type PluginContents,
  type PluginFile,
} from './plugin-file.ts';

export class PluginEdit implements Closable {
  readonly path: string;
  /** As it was read. */
  readonly plugin: PluginFile;
  readonly #fd: number;
  readonly #stat: fs.BigIntStats;
  #closed = false;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
    // Before it is read: a change in between is one that is noticed.
    this.#stat = fs.fstatSync(fd, { bigint: true });
    this.plugin = readOpenPluginFile(fd, path);
  }

  /**
   * @param purpose whether it may be written; who only looks, locks nobody out
   * @throws FormatError, ForbiddenError as readPluginFile; UnavailableError when somebody else is changing it
   */
  static open(pluginPath: string, purpose: 'to look' | 'to change'): PluginEdit {
    const fd = openPluginFile(pluginPath);
    try {
      if (purpose === 'to change' && tryLock(fd, 'exclusive') === 'taken')
        throw new UnavailableError(`${pluginPath}: is locked by another process, which changes it or uses its disk`, {
          retryable: true,
        });
      const edit = new PluginEdit(pluginPath, fd);
      edit.requireUnchanged();
      return edit;
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
  }

  /** Whose it is, and so what goes with it. */
  get owner(): FileOwner {
    const { uid, gid, mode } = this.#stat;
    return { uid: Number(uid), gid: Number(gid), mode: Number(mode) };
  }

  /** @throws UnavailableError when the file that has the name is not what was read */
  requireUnchanged(): void {
    const now = fs.statSync(this.path, { bigint: true, throwIfNoEntry: false });
    if (now !== undefined && stateOf(now) === stateOf(this.#stat)) return;
    throw new UnavailableError(
      `${this.path}: was changed by somebody else meanwhile, and is left as it is; try again`,
      {
        retryable: true,
      },
    );
  }

  /**
   * Writes it anew, for its owner as before. Once: then it is another file than the one that was read.
   * @throws UnavailableError when it was changed meanwhile; CapacityError
   */
  write(contents: PluginContents): PluginFile {
    const bytes = encodePluginFile(contents);
    writeFileDurably(this.path, bytes, fileModes.pluginFile, this.owner, () => this.requireUnchanged());
    return parsePluginFile(bytes, this.path);
  }

  /** Lets the lock go. Idempotent. */
  close(): void {
    if (!this.#closed) fs.closeSync(this.#fd);
    this.#closed = true;
  }
}

function stateOf({ dev, ino, size, mtimeNs, ctimeNs }: fs.BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join();
}
