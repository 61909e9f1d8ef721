/** Run by tests in a process of its own, to be killed or lied to: puts another key file into slot 0. IMAGE OLD NEW */
import { describeError, VeneerError } from '../../../src/base/errors.ts';
import { rotateKey } from '../../../src/backup/care/change-keys.ts';
import { keyFile } from '../keys.ts';

const [image = '', before = '', after = ''] = process.argv.slice(2);
try {
  rotateKey(image, [keyFile(before)], 0, keyFile(after));
} catch (error) {
  if (!(error instanceof VeneerError)) throw error;
  console.error(describeError(error));
  process.exitCode = 3;
}
