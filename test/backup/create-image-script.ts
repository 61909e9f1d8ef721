/** Run by tests in a process of its own, to be killed or lied to: makes an image. SOURCE IMAGE [OPTIONS as JSON] */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { describeError, VeneerError } from '../../src/base/errors.ts';
import { createImage, type CreateOptions } from '../../src/backup/write/create.ts';

interface Options extends CreateOptions {
  /** The write of this number, from 1, writes so few bytes and says so, as a real one may. */
  readonly shortWrite?: { readonly number: number; readonly bytes: number };
}

const [sourcePath = '', imagePath = '', json = '{}'] = process.argv.slice(2);
const { shortWrite, ...options } = JSON.parse(json) as Options;
if (shortWrite !== undefined) writeShort(shortWrite.number, shortWrite.bytes);
try {
  await createImage(sourcePath, imagePath, options);
} catch (error) {
  if (!(error instanceof VeneerError)) throw error;
  console.error(describeError(error));
  process.exitCode = 3;
}

function writeShort(number: number, bytes: number): void {
  const writeSync = fs.writeSync.bind(fs) as (...args: unknown[]) => number;
  let calls = 0;
  const short = (fd: number, buffer: Uint8Array, start: number, length: number, position: number): number => {
    calls++;
    return writeSync(fd, buffer, start, calls === number ? Math.min(length, bytes) : length, position);
  };
  Object.assign(fs, { writeSync: short });
  syncBuiltinESMExports();
}
