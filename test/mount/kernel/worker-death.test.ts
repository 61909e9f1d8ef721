import fs from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { InProcessMount } from './in-process.ts';

/** As dying-worker.ts has it; importing that would start a worker here. */
const poison = 'die here';
const workers = 3;
const maxDeaths = 8;
const patience = { timeout: 30_000 };

let mount: InProcessMount;

beforeEach(async () => {
  const workerModule = new URL('./dying-worker.ts', import.meta.url);
  mount = await InProcessMount.start({ workers, maxDeaths, workerModule });
});
afterEach(async () => mount.end());

it('the request of a worker that dies fails, it is reported and replaced, and the others serve on', async () => {
  const { transport, told } = mount;
  fs.writeFileSync(mount.behind('poison'), poison);
  fs.writeFileSync(mount.behind('sound'), 'sound');
  const open = await fs.promises.open(mount.under('sound'));
  for (let round = 0; round < 3; round++) {
    await expect(fs.promises.readFile(mount.under('poison'))).rejects.toMatchObject({ code: 'EIO' });
    expect(await fs.promises.readFile(mount.under('sound'), 'utf8')).toBe('sound');
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
  const { transport, told } = mount;
  fs.writeFileSync(mount.behind('poison'), poison);
  while (transport.look()) await expect(fs.promises.readFile(mount.under('poison'))).rejects.toThrow();
  expect(transport.status().diedWorkers).toBeGreaterThan(maxDeaths);
  expect(told.some((line) => line.includes('given up'))).toBe(true);
  // Nobody waits for an answer that never comes.
  await expect(fs.promises.readdir(mount.mountpoint)).rejects.toThrow();
}, 120_000);
