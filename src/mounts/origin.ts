/**
 * Where a folder lies on its file system: the same whichever of several mounts of that file system (bind mounts) it is reached by. Paths
 * alone do not tell whether one folder is inside another.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { bytesOfName, nameOfBytes } from '../base/names.ts';

export interface Origin {
  /** Of the file system, as the system lists it: major:minor. */
  readonly device: string;
  /** From the root of the file system. */
  readonly path: string;
}

/** @param folder absolute, with no symbolic links */
export function originOf(folder: string): Origin {
  let best: Origin & { readonly at: string } = { device: '', path: '/', at: '/' };
  // Of mounts at one place, the last one covers the others.
  for (const mount of mounts()) if (isWithin(folder, mount.at) && mount.at.length >= best.at.length) best = mount;
  return { device: best.device, path: path.join(best.path, path.relative(best.at, folder)) };
}

/** Whether one of them is the other, or inside it. */
export function overlap(one: Origin, other: Origin): boolean {
  return one.device === other.device && (isWithin(one.path, other.path) || isWithin(other.path, one.path));
}

function mounts(): (Origin & { at: string })[] {
  return nameOfBytes(fs.readFileSync('/proc/self/mountinfo'))
    .split('\n')
    .map((line) => line.split(' '))
    .filter((fields) => fields.length > 4)
    .map(([, , device = '', root = '/', at = '/']) => ({ device, path: unescaped(root), at: unescaped(at) }));
}

/** Blanks and the like stand there as their bytes in octal. */
function unescaped(field: string): string {
  const bytes = bytesOfName(field).toString('latin1');
  const plain = bytes.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return nameOfBytes(Buffer.from(plain, 'latin1'));
}

function isWithin(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer.endsWith('/') ? outer : `${outer}/`);
}
