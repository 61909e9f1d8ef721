/**
 * A process of its own that opens one chain, reads from it, and prints what that took, as JSON.
 *
 *   node open-chain.ts IMAGE PLACES.json
 *
 * PLACES holds { firsts, written, anywhere }: offsets to read 4 KiB at, in that order.
 */
import fs from 'node:fs';
import { openChainDisk } from '../src/backup/read/chain.ts';
import { chainKeys } from './chain-keys.ts';

interface Places {
  /** One after the other, each timed by itself. */
  readonly firsts: Readonly<Record<string, number>>;
  readonly written: readonly number[];
  readonly anywhere: readonly number[];
}

const [, , image = '', placesFile = ''] = process.argv;
const { firsts, written, anywhere } = JSON.parse(fs.readFileSync(placesFile, 'utf8')) as Places;
const target = new Uint8Array(4096);

const residentBytes = (): number => process.memoryUsage.rss();
const timeMs = (action: () => void): number => {
  const startMs = performance.now();
  action();
  return performance.now() - startMs;
};

const keys = chainKeys();
const beforeBytes = residentBytes();
let disk: ReturnType<typeof openChainDisk> | undefined;
const openMs = timeMs(() => (disk = openChainDisk(image, undefined, undefined, keys)));
const opened = disk;
if (opened === undefined) throw new Error('the chain did not open');
const openBytes = residentBytes() - beforeBytes;
const read = (offset: number): number => timeMs(() => opened.read(target, offset)) * 1000;
const firstUs = Object.fromEntries(Object.entries(firsts).map(([name, offset]) => [name, read(offset)]));
const writtenUs = written.map(read);
const anywhereUs = anywhere.map(read);
const readBytes = residentBytes() - beforeBytes;
console.log(
  JSON.stringify({
    images: opened.images.length,
    openMs,
    openBytes,
    firstUs,
    writtenUs,
    anywhereUs,
    readBytes,
    beforeBytes,
  }),
);
opened.close();
