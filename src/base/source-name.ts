/**
 * Names the source that a path leads to, and touches nothing of it: the mount point that it lies under, where that is another than that of
 * the folder where the path was found; else the folder that it lies in. So all folders of one dead server are one source, and a folder of
 * one's own is never taken for a part of it.
 *
 * Symbolic links on the way are followed as long as they lie on the found folder's own file system, or on one that this lies under.
 */
import * as fs from './fs.ts';
import path from 'node:path';
import { absolutePath } from './given-names.ts';
import { mountPoints } from './mount-points.ts';

/** As the system has it. */
const maxLinks = 40;

/** @param target absolute. @param foundIn an absolute folder that answers */
export function sourceNameOf(target: string, foundIn: string): string {
  const mounts = new Set(mountPoints());
  let at = '/';
  let left = partsOf(target);
  for (let links = 0; left.length > 0;) {
    const [part = '', ...rest] = left;
    const next = path.join(at, part);
    if (mounts.has(next) && !isWithin(foundIn, next)) return next;
    const link = links < maxLinks ? readLink(next) : undefined;
    left = rest;
    if (link === undefined) {
      at = next;
      continue;
    }
    links++;
    left = [...partsOf(absolutePath(at, link)), ...rest];
    at = '/';
  }
  return path.dirname(at);
}

function readLink(file: string): string | undefined {
  try {
    return fs.readlinkSync(file);
  } catch {
    // No link, or not there.
    return undefined;
  }
}

function partsOf(absolute: string): string[] {
  return absolute.split('/').filter((part) => part !== '');
}

function isWithin(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer === '/' ? outer : `${outer}/`);
}
