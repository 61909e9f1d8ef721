import fs from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { KernelTransport } from '../../../src/mount/kernel/transport.ts';
import { unmount } from '../../../src/mount/mountpoint.ts';
import { OpenReplacements } from '../../../src/mount/replacements.ts';
import { Statistics } from '../../../src/mount/statistics.ts';
import { TempFolder } from '../../temp-folder.ts';

/** As dying-worker.ts has it; importing that would start a worker here. */
const poison = 'die here';
const workers = 3;
const maxDeaths = 8;
const patience = { timeout: 30_000 };

let folder: TempFolder;
let mountpoint: string;
let transport: KernelTransport;
let told: string[];

beforeEach(async () => {
  folder = new TempFolder();
  mountpoint = folder.file('mount');
  for (const name of ['mount', 'folder']) fs.mkdirSync(folder.file(name));
  told = [];
  const logFd = fs.openSync(folder.file('log'), 'a');
  const options = {
    filter: { folder: folder.file('folder'), allowPaths: [], present: undefined, write: undefined },
    mountpoint,
    workers,
    cacheBytes: 2 ** 20,
    idleMs: 1000,
    statistics: new Statistics(Statistics.allocate(workers + 1)),
    replacements: new OpenReplacements(),
    logFd,
    maxDeaths,
    workerModule: new URL('./dying-worker.ts', import.meta.url),
  };
  transport = await KernelTransport.start(options, (_level, message) => void told.push(message));
});

afterEach(async () => {
  await unmount(mountpoint, true);
  await transport.close();
  folder.remove();
});

it('the request of a worker that dies fails, it is reported and replaced, and the others serve on', async () => {
  fs.writeFileSync(folder.file('folder/poison'), poison);
  fs.writeFileSync(folder.file('folder/sound'), 'sound');
  const open = await fs.promises.open(`${mountpoint}/sound`);
  for (let round = 0; round < 3; round++) {
    await expect(fs.promises.readFile(`${mountpoint}/poison`)).rejects.toMatchObject({ code: 'EIO' });
    expect(await fs.promises.readFile(`${mountpoint}/sound`, 'utf8')).toBe('sound');
    // What a worker had opened, the others still have.
    expect((await open.read(Buffer.alloc(5), 0, 5, 0)).buffer.toString()).toBe('sound');
    await expect.poll(() => transport.status().workers, patience).toBe(workers);
    // The kernel asks a second time for a page that it could not read ahead.
    const { diedWorkers } = transport.status();
    expect(diedWorkers).toBeGreaterThan(round);
    expect(told.filter((line) => line.includes('died'))).toHaveLength(diedWorkers);
  }
  await open.close();
}, 120_000);

it('a mount whose workers die again and again says that it cannot serve any more', async () => {
  fs.writeFileSync(folder.file('folder/poison'), poison);
  while (transport.look()) await expect(fs.promises.readFile(`${mountpoint}/poison`)).rejects.toThrow();
  expect(transport.status().diedWorkers).toBeGreaterThan(maxDeaths);
  expect(told.some((line) => line.includes('given up'))).toBe(true);
  // Nobody waits for an answer that never comes.
  await expect(fs.promises.readdir(mountpoint)).rejects.toThrow();
}, 120_000);
