/** A folder and the folders below it. Symbolic links are not followed. */
import * as fs from './fs.ts';
import path from 'node:path';
import { systemErrorCode } from './errors.ts';

/** Deeper than anybody keeps machines, and an end for whatever has none. */
const maxDepth = 16;
/** What a folder below may answer where it went away, or is nothing to this user. */
const passedOver = ['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ENOTCONN', 'EIO', 'ESTALE'];

/**
 * The folder first, then those below it, each before its own.
 * @param isSkipped whether a folder, by its path, is not entered
 * @throws the system's error when the folder itself cannot be read
 */
export function* foldersFrom(
  folder: string,
  isSkipped: (folder: string) => boolean = () => false,
  depth = 0,
): Generator<string> {
  const below = subFolders(folder, depth > 0);
  yield folder;
  if (depth === maxDepth) return;
  for (const name of below) {
    const child = path.join(folder, name);
    if (!isSkipped(child)) yield* foldersFrom(child, isSkipped, depth + 1);
  }
}

function subFolders(folder: string, mayBeMissing: boolean): string[] {
  try {
    return fs
      .readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort();
  } catch (error) {
    if (mayBeMissing && passedOver.includes(systemErrorCode(error) ?? '')) return [];
    throw error;
  }
}
