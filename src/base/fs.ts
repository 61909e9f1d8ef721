/**
 * Node's file system calls, with names that are bytes (names.ts). All of this program calls the file system through here; a lint rule holds
 * that. Calls on descriptors are Node's own.
 */
import * as node from 'node:fs';
import { bytesOfName, nameOfBytes, nativePath } from './names.ts';

export * from 'node:fs';

// What takes a path may take a descriptor, too.
function native<T>(path: T): T {
  return (typeof path === 'string' ? nativePath(path) : path) as T;
}

type PathCall = (path: never, ...rest: never[]) => unknown;

/** @param call Node's own, asked for at each call: tests of faults put others in its place */
function withPath<F extends PathCall>(call: () => F): F {
  return ((path: never, ...rest: never[]) => {
    const at = native(path);
    if (at === path && !isHeld(path)) return call()(at, ...rest);
    return named([path], () => call()(at, ...rest));
  }) as F;
}

function withTwoPaths<F extends (from: never, to: never, ...rest: never[]) => unknown>(call: () => F): F {
  return ((from: never, to: never, ...rest: never[]) =>
    named([from, to], () => call()(native(from), native(to), ...rest))) as F;
}

/** Node's messages name a path as text: where that is another, they get the one that a user knows. */
function named<T>(paths: readonly string[], call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof Error) {
      for (const path of paths)
        error.message = error.message.replace(bytesOfName(path).toString(), () => shownPath(path));
    }
    throw error;
  }
}

const heldFolder = '/proc/self/fd/';

/** Whether a path begins at a descriptor of this process. */
function isHeld(path: unknown): path is string {
  return typeof path === 'string' && path.startsWith(heldFolder);
}

/** What messages call a path: of one that begins at a descriptor, what that leads to now. */
export function shownPath(path: string): string {
  if (!isHeld(path)) return path;
  const behind = path.indexOf('/', heldFolder.length);
  const end = behind < 0 ? path.length : behind;
  try {
    return readlinkSync(path.slice(0, end)) + path.slice(end);
  } catch {
    return path;
  }
}

export const accessSync = withPath(() => node.accessSync);
export const chmodSync = withPath(() => node.chmodSync);
export const chownSync = withPath(() => node.chownSync);
export const existsSync = withPath(() => node.existsSync);
export const lchownSync = withPath(() => node.lchownSync);
export const lstatSync = withPath(() => node.lstatSync);
export const mkdirSync = withPath(() => node.mkdirSync);
export const openSync = withPath(() => node.openSync);
export const readFileSync = withPath(() => node.readFileSync);
export const rmdirSync = withPath(() => node.rmdirSync);
export const rmSync = withPath(() => node.rmSync);
export const statfsSync = withPath(() => node.statfsSync);
export const statSync = withPath(() => node.statSync);
export const unlinkSync = withPath(() => node.unlinkSync);
export const writeFileSync = withPath(() => node.writeFileSync);
export const copyFileSync = withTwoPaths(() => node.copyFileSync);
export const linkSync = withTwoPaths(() => node.linkSync);
export const renameSync = withTwoPaths(() => node.renameSync);
export const symlinkSync = withTwoPaths(() => node.symlinkSync);

export function readlinkSync(path: string): string {
  return nameOfBytes(node.readlinkSync(native(path), 'buffer'));
}

export function realpathSync(path: string): string {
  return nameOfBytes(node.realpathSync.native(native(path), 'buffer'));
}

export function mkdtempSync(prefix: string): string {
  return nameOfBytes(node.mkdtempSync(native(prefix), 'buffer'));
}

/** What Node puts for bytes that are no UTF-8: only then the names are asked for again, as bytes. */
const replacementCharacter = '\uFFFD';

export function readdirSync(path: string): string[];
export function readdirSync(path: string, options: { readonly withFileTypes: true }): node.Dirent[];
export function readdirSync(path: string, options?: { readonly withFileTypes: true }): string[] | node.Dirent[] {
  if (options !== undefined) return entriesOf(path);
  const names = node.readdirSync(native(path));
  if (!names.some((name) => name.includes(replacementCharacter))) return names;
  return node.readdirSync(native(path), 'buffer').map(nameOfBytes);
}

function entriesOf(path: string): node.Dirent[] {
  const entries = node.readdirSync(native(path), { withFileTypes: true, encoding: 'buffer' });
  return entries.map((entry) => Object.assign(entry, { name: nameOfBytes(entry.name) }) as unknown as node.Dirent);
}
