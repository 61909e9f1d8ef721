/**
 * A mount that may open few files (`ulimit -n`): what needs one more fails, in one line, and nothing else does. No file reads as another, or as
 * shorter than it is, and the mount stays.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { createImage } from '../../src/backup/write/create.ts';
import { MiB } from '../../src/base/units.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { runOk, veneerPath } from '../cli/veneer.ts';
import { patience } from '../patience.ts';
import { writeDisk } from './guest-disk.ts';
import { placeForTest } from './mounted.ts';

const disks = 60;
const limit = 256;
const sizeBytes = 6 * MiB;
/** More than once each of the main thread's timers. */
const looksMs = 1500;

it(
  'that is out of them goes on, and reads what was written to each disk, or fails',
  { timeout: patience(120_000) },
  async () => {
    const place = placeForTest();
    const raw = place.temporary.file('disk.raw');
    writeDisk(raw, 'few files', sizeBytes);
    await createImage(raw, place.behind('vm.spf'));
    const names = Array.from({ length: disks }, (_, index) => `${index}.raw`);
    for (const name of names) createPluginFile(place.behind('vm.spf'), place.behind(name));
    const mount = `ulimit -n ${limit}; exec "$@"`;
    await runOk('bash', ['-c', mount, 'bash', process.execPath, veneerPath, 'mount', place.folder, place.mountpoint]);
    const { pid } = await place.status();
    const written = new Map<string, number>();
    for (const name of names) {
      try {
        const fd = fs.openSync(place.under(name), 'r+');
        written.set(name, fd);
        fs.writeSync(fd, Buffer.from(name.padEnd(16)), 0, 16, 4096);
        fs.fsyncSync(fd);
      } catch {
        // No file is left for this one: it is not among those that are looked at.
        const fd = written.get(name);
        if (fd !== undefined) fs.closeSync(fd);
        written.delete(name);
      }
    }
    expect(written.size).toBeGreaterThan(8);
    let read = 0;
    for (let round = 0; round < 3; round++) {
      for (const [name, fd] of written) {
        const found = Buffer.alloc(16);
        try {
          expect(fs.fstatSync(fd).size).toBe(sizeBytes);
          expect(fs.readSync(fd, found, 0, 16, 4096)).toBe(16);
        } catch (error) {
          if (!(error instanceof Error && 'syscall' in error)) throw error;
          continue;
        }
        read++;
        expect(found.toString().trim()).toBe(name);
      }
      await sleep(looksMs);
    }
    expect(read).toBeGreaterThan(0);
    for (const fd of written.values()) fs.closeSync(fd);
    expect((await place.status()).pid).toBe(pid);
    await place.unmount();
    await place.mount();
    for (const name of written.keys())
      expect(fs.readFileSync(place.under(name)).toString('latin1', 4096, 4112).trim()).toBe(name);
  },
);
