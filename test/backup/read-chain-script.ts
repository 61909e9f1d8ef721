/** Run by a test in a process of its own: reads a whole chain and tells its checksum, and what memory it took, and processor time to open it. */
import { createHash } from 'node:crypto';
import { openChainDisk } from '../../src/backup/read/chain.ts';

const newest = process.argv[2] ?? '';
const started = process.cpuUsage();
const disk = openChainDisk(newest);
const used = process.cpuUsage(started);
const openMs = (used.user + used.system) / 1000;
const hash = createHash('sha256');
const buffer = Buffer.alloc(64 * 1024);
for (let at = 0; at < disk.sizeBytes; at += buffer.length) {
  const part = buffer.subarray(0, Math.min(buffer.length, disk.sizeBytes - at));
  disk.read(part, at);
  hash.update(part);
}
const images = disk.images.length;
disk.close();
const residentMiB = process.resourceUsage().maxRSS / 1024;
console.log(JSON.stringify({ sha256: hash.digest('hex'), images, residentMiB, openMs }));
