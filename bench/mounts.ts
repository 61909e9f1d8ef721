/** Mounts of a benchmark: whether they are there, and away with them. */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

const execFilePromise = promisify(execFile);

/** Whether something is mounted at this absolute path. */
export function isMounted(mountpoint: string): boolean {
  return mountpoints().includes(mountpoint);
}

/** Unmounts, also what is busy or dead. Nothing there is fine. */
export async function unmountAll(folder: string): Promise<void> {
  for (const mountpoint of mountpoints()) {
    if (!mountpoint.startsWith(folder + path.sep)) continue;
    await execFilePromise('fusermount3', ['-u', '-z', '-q', mountpoint]).catch(() => undefined);
  }
}

function mountpoints(): string[] {
  // Spaces and the like are written as \040.
  return fs
    .readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) =>
      (line.split(' ')[1] ?? '').replaceAll(/\\(\d{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      ),
    );
}
