/**
 * How far the pointers of a plugin file may lead: a plugin file comes from whoever can write to the folder, so they are followed only inside
 * the folder tree that is mounted, and into paths that the mount allows.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { ForbiddenError, UnavailableError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { sourceGate } from '../base/source-gate.ts';
import { sourceNameOf } from '../base/source-name.ts';
import { requireReadable, type Ownership } from './authors.ts';

/** Where pointers may lead. All absolute; the first is the mounted folder. Plain values: they go to other threads. */
export interface AllowedPaths {
  readonly folders: readonly string[];
  /** Of the plugin file, where whoever may write it must be able to read what it points to. */
  readonly ownership?: Ownership;
}

export class Reach {
  readonly #pluginPath: string;
  readonly #allowed: AllowedPaths;

  constructor(pluginPath: string, allowed: AllowedPaths) {
    this.#pluginPath = pluginPath;
    this.#allowed = allowed;
  }

  /** Where a pointer leads by its text alone: nothing needs to be there. @throws ForbiddenError when that is outside */
  named(pointer: string): string {
    const target = absolutePath(path.dirname(this.#pluginPath), pointer);
    this.#requireInside(target, target, pointer);
    return target;
  }

  /**
   * Judges where a file lies once links are resolved. Comes before anything of it is read.
   * @param named where the pointer leads by its text
   * @returns the file's path without links
   * @throws ForbiddenError when that is outside; UnavailableError when it is not there
   */
  judge(file: string, named: string): string {
    const real = realPath(file, this.#pluginPath);
    this.#requireInside(real, named, path.relative(path.dirname(this.#pluginPath), file));
    return real;
  }

  /**
   * Opens a file with the rights of everybody who may write the plugin file, where that is asked for.
   * @param isSame whether a file is the one that was opened by this path
   * @throws ForbiddenError when one of them may not read it; UnavailableError when it is another by now
   */
  requireReadableByAuthors(file: string, isSame?: (stat: fs.BigIntStats) => boolean): void {
    if (this.#allowed.ownership === undefined) return;
    const real = realPath(file, this.#pluginPath);
    const folder = this.#requireInside(real, file, file);
    requireReadable(real, folder, this.#allowed.ownership, this.#pluginPath, isSame);
  }

  /** What is passed on the way to the file (source-gate.ts); 0 where nobody watches sources. */
  sourceOf(named: string): number {
    return sourceGate().sourceOf(() => sourceNameOf(named, path.dirname(this.#pluginPath)));
  }

  /**
   * An allowed folder is looked at only where its name alone does not tell, and the one that the pointer names first: one that does not answer
   * must not keep those from their images whose own does.
   * @param named where the pointer leads by its text
   * @returns the folder that the target lies in
   */
  #requireInside(target: string, named: string, pointer: string): string {
    const { folders } = this.#allowed;
    const found = folders.find((folder) => isWithin(target, folder));
    if (found !== undefined) return found;
    const byName = [...folders].sort((a, b) => Number(isWithin(named, b)) - Number(isWithin(named, a)));
    for (const folder of byName) {
      const real = realFolder(folder);
      if (real !== undefined && isWithin(target, real)) return real;
    }
    throw new ForbiddenError(
      `${this.#pluginPath}: points to ${JSON.stringify(pointer)}, outside the mounted folder; mount with --allow-path ${path.dirname(target)} if that is meant`,
    );
  }
}

function isWithin(target: string, folder: string): boolean {
  return target === folder || target.startsWith(folder.endsWith('/') ? folder : `${folder}/`);
}

/** Without links. A folder that is away for the moment allows nothing, and costs the others nothing. */
function realFolder(folder: string): string | undefined {
  const gate = sourceGate();
  try {
    return gate.through(
      gate.sourceOf(() => sourceNameOf(folder, '/')),
      () => fs.realpathSync(folder),
    );
  } catch {
    return undefined;
  }
}

function realPath(target: string, pluginPath: string): string {
  try {
    return fs.realpathSync(target);
  } catch (error) {
    throw new UnavailableError(`${pluginPath}: ${target} is not there`, { cause: error, retryable: true });
  }
}
