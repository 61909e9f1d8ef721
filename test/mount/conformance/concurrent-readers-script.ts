/**
 * Many readers of one file, each at places of its own, past the page cache; every byte is compared with a file that holds what belongs
 * there. How many of them are inside a read at once is the size of Node's pool of threads: UV_THREADPOOL_SIZE.
 */
import fs from 'node:fs';
import { createHash } from 'node:crypto';

interface Job {
  readonly file: string;
  readonly expected: string;
  readonly readers: number;
  readonly readsEach: number;
  readonly seed: string;
}

const job = JSON.parse(process.argv[2] ?? '') as Job;

const expected = fs.readFileSync(job.expected);

async function reader(number: number): Promise<void> {
  const handle = await fs.promises.open(job.file, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
  try {
    for (let count = 0; count < job.readsEach; count++) {
      const digest = createHash('sha256').update(`${job.seed} ${number} ${count}`).digest();
      const offset = digest.readUIntLE(0, 6) % expected.length;
      const length = Math.min(1 + (digest.readUInt32LE(8) % 300_000), expected.length - offset);
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, offset);
      if (bytesRead !== length) throw new Error(`${bytesRead} of ${length} bytes at ${offset}`);
      if (!buffer.equals(expected.subarray(offset, offset + length)))
        throw new Error(`${length} bytes at ${offset} differ`);
    }
  } finally {
    await handle.close();
  }
}

await Promise.all(Array.from({ length: job.readers }, (_, number) => reader(number)));
console.log(`${job.readers * job.readsEach} reads, all right`);
