/** The kernel's page cache: what measurements of servers must not measure. */
import fs from 'node:fs';
import koffi from 'koffi';

const POSIX_FADV_DONTNEED = 4;
const readBytes = 4 * 1024 * 1024;

const fadvise = koffi.load(null).func('int posix_fadvise(int fd, int64 offset, int64 length, int advice)') as (
  fd: number,
  offset: number,
  length: number,
  advice: number,
) => number;

/**
 * Drops a file's clean pages: of a file in a mount, so that the next read asks the server; of a stored file, so that it asks the disk.
 * Opening may wait for a server, and so it is not done on this thread.
 */
export async function dropPages(path: string): Promise<void> {
  const file = await fs.promises.open(path, 'r');
  try {
    const failure = fadvise(file.fd, 0, 0, POSIX_FADV_DONTNEED);
    if (failure !== 0) throw new Error(`posix_fadvise of ${path} failed with ${failure}`);
  } finally {
    await file.close();
  }
}

/** Reads a stored file once, so that servers find it in memory whoever has pushed it out. */
export function warmPages(path: string): void {
  const fd = fs.openSync(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(readBytes);
    while (fs.readSync(fd, buffer) > 0);
  } finally {
    fs.closeSync(fd);
  }
}
