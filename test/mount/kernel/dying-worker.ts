/** A worker of the kernel transport that dies when it reads a file that tells it to. */
import { serveAsWorker } from '../../../src/mount/kernel/worker.ts';
import { PassThroughFile } from '../../../src/mount/open-file.ts';

export const poison = 'die here';

const read = Object.getOwnPropertyDescriptor(PassThroughFile.prototype, 'read')?.value as PassThroughFile['read'];
PassThroughFile.prototype.read = function (target, offset) {
  const count = read.call(this, target, offset);
  if (Buffer.from(target.subarray(0, poison.length)).toString() === poison) process.exit(13);
  return count;
};

serveAsWorker();
