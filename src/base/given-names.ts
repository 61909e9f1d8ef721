/**
 * Names that this process was given from outside: its arguments, its environment and its current folder. Node makes text of them, and a byte
 * that is no UTF-8 is lost then; so where that may have happened, the system is asked for the bytes.
 */
import os from 'node:os';
import path from 'node:path';
import * as fs from './fs.ts';
import { nameOfBytes } from './names.ts';

/** What Node puts for bytes that are no UTF-8. */
const replacementCharacter = '\uFFFD';
/** Of a launcher that has started this process: a file with its arguments, which could not be handed on as they were. */
const launcherArguments = 'VENEER_ARGUMENTS';

/** The program's arguments, as names are: the last of all that the process has. */
export function givenArguments(): string[] {
  const given = process.argv.slice(2);
  if (!given.some((argument) => argument.includes(replacementCharacter))) return given;
  const all = zeroTerminated(process.env[launcherArguments] ?? '/proc/self/cmdline');
  return given.length === 0 ? [] : all.slice(-given.length);
}

/** A variable of the environment that holds a path. */
function givenPath(variable: string): string | undefined {
  const value = process.env[variable];
  if (value?.includes(replacementCharacter) !== true) return value;
  const start = `${variable}=`;
  return zeroTerminated('/proc/self/environ')
    .find((entry) => entry.startsWith(start))
    ?.slice(start.length);
}

/** The folder for what is gone with this run of the user's session; undefined where there is none. */
export function runtimeFolder(): string | undefined {
  return givenPath('XDG_RUNTIME_DIR') || undefined;
}

export function homeFolder(): string {
  return givenPath('HOME') ?? os.homedir();
}

export function temporaryFolder(): string {
  const found = os.tmpdir();
  return found.includes(replacementCharacter) ? (givenPath('TMPDIR') ?? found) : found;
}

/** `path.resolve`, from a current folder of whatever name. */
export function absolutePath(given: string, ...more: readonly string[]): string {
  if (path.isAbsolute(given)) return path.resolve(given, ...more);
  const current = process.cwd();
  const exact = current.includes(replacementCharacter) ? fs.readlinkSync('/proc/self/cwd') : current;
  return path.resolve(exact, given, ...more);
}

function zeroTerminated(file: string): string[] {
  const text = nameOfBytes(fs.readFileSync(file));
  return text.split('\0').slice(0, -1);
}
