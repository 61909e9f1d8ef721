/** Writes random ranges of a file until that fails, saying before each what it is about to write, and after it that it was acknowledged. */
import fs from 'node:fs';
import { Seeded } from '../seeded.ts';

const [file = '', seed = '', sizeBytes = '0', maxBytes = '1'] = process.argv.slice(2);
const random = new Seeded(seed);
const fd = fs.openSync(file, 'r+');
for (;;) {
  const lengthBytes = 1 + random.below(Number(maxBytes));
  const offset = random.below(Number(sizeBytes) - lengthBytes);
  const fill = random.below(256);
  const line = `${offset} ${lengthBytes} ${fill};\n`;
  fs.writeSync(1, `begin ${line}`);
  try {
    // When the process that serves dies in between, only the front of it is acknowledged.
    if (fs.writeSync(fd, Buffer.alloc(lengthBytes, fill), 0, lengthBytes, offset) < lengthBytes) break;
  } catch {
    break;
  }
  fs.writeSync(1, `done ${line}`);
}
