/**
 * Whether a chain is in use. Whoever reads a chain holds a shared lock (flock) on its newest image for as long; whoever takes images of a
 * chain away holds the images whose readers may need them exclusively. The kernel releases both when a process ends, however it ends.
 */
import * as fs from '../../base/fs.ts';
import { UnavailableError, UsageError } from '../../base/errors.ts';
import { tryLock, tryMark } from '../../base/file-lock.ts';
import { isSameFile } from '../../base/same-file.ts';
import { closeAll, type Closable } from '../../base/ownership.ts';
import { sourceGate } from '../../base/source-gate.ts';

const attempts = 10;

/**
 * Keeps an image and its parents in their place until it is closed. Where the file system has no such locks, nothing is kept.
 * @throws UnavailableError when the image is not there, or is just being replaced
 */
export function lockInUse(imagePath: string): Closable {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const lock = openForLock(imagePath);
    if (tryLock(lock.fd, 'shared') === 'taken') {
      lock.close();
      throw new UnavailableError(`${imagePath}: is just being consolidated; try again in a moment`, {
        retryable: true,
      });
    }
    // While we waited for nobody, another file may have got the name.
    if (isSameFile(imagePath, `/proc/self/fd/${lock.fd}`)) return lock;
    lock.close();
  }
  throw new UnavailableError(`${imagePath}: is replaced again and again; try again in a moment`, { retryable: true });
}

/**
 * Takes all of the images for removing some of them.
 * @throws UsageError naming the first that someone reads
 */
export function lockForRemoval(imagePaths: readonly string[]): Closable {
  const locks: Closable[] = [];
  try {
    for (const imagePath of imagePaths) {
      const lock = openForLock(imagePath);
      locks.push(lock);
      if (tryLock(lock.fd, 'exclusive') === 'taken') {
        throw new UsageError(
          `${imagePath}: is in use, by a mount or another command; its chain stays as it is until that has ended`,
        );
      }
    }
    return { close: () => closeAll(locks.splice(0)) };
  } catch (error) {
    closeAll(locks);
    throw error;
  }
}

/**
 * For whoever changes what lies in a folder of chains, one at a time.
 * @throws UsageError when another process does so
 */
export function lockFolder(folder: string): Closable {
  const lock = openForLock(folder);
  if (tryMark(lock.fd) !== 'taken') return lock;
  lock.close();
  throw new UsageError(`${folder}: another command is changing the chains here; wait for it, or stop it`);
}

function openForLock(imagePath: string): Closable & { readonly fd: number } {
  let fd: number;
  try {
    fd = fs.openSync(imagePath, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    throw new UnavailableError(`${imagePath}: the image cannot be opened`, { cause: error, retryable: true });
  }
  const source = sourceGate().current;
  let closed = false;
  return {
    fd,
    close() {
      if (!closed) sourceGate().closing(source, () => fs.closeSync(fd));
      closed = true;
    },
  };
}
