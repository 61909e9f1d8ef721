/** File handles, as an NFS server keeps them for its clients: a handle opens its file or nothing, whatever the kernel has forgotten. */
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { runOk } from '../../cli/veneer.ts';
import { seededTest, soak } from '../../seeded.ts';
import { placeForTest } from '../mounted.ts';
import { InProcessMount } from './in-process.ts';

const steps = soak ? 30_000 : 800;
const timeoutMs = soak ? 1_800_000 : 120_000;

interface Counts {
  readonly found: number;
  readonly stale: number;
}

async function handles(...args: readonly string[]): Promise<Counts> {
  const script = path.join(import.meta.dirname, 'handles_model.py');
  const printed = await runOk('/usr/bin/python3', [script, ...args]);
  return JSON.parse(printed === '' ? '{}' : printed) as Counts;
}

async function startMount(maxNodes?: number): Promise<InProcessMount> {
  const mount = await InProcessMount.start({ workers: 2, ...(maxNodes === undefined ? {} : { maxNodes }) });
  onTestFinished(async () => mount.end());
  return mount;
}

describe.skipIf(process.getuid?.() !== 0)('a file handle', () => {
  it.for(['drop', 'crowd'])(
    'opens its file or none, through random steps and forgetting (%s)',
    { timeout: timeoutMs },
    async (pressure) => {
      const random = seededTest(`handles ${pressure}`);
      const mount = await startMount(150);
      fs.mkdirSync(mount.behind('many'));
      for (let index = 0; index < 1000; index++) fs.writeFileSync(mount.behind(`many/${index}`), '');
      const { found, stale } = await handles(
        'model',
        mount.mountpoint,
        mount.behind('.'),
        random.seed,
        String(steps),
        pressure,
      );
      console.info(`${pressure}: ${found} found, ${stale} stale`);
      expect(found).toBeGreaterThan(steps / 20);
      expect(stale).toBeGreaterThan(0);
    },
  );

  it('survives that the kernel forgets its file, where the file still lies', async () => {
    const mount = await startMount();
    fs.mkdirSync(mount.behind('below'));
    const names = ['first', 'second', 'below/third', 'below/fourth'];
    for (const name of names) fs.writeFileSync(mount.behind(name), `this is ${name}`);
    const kept = mount.temporary.file('handles');
    await handles('take', mount.mountpoint, kept, ...names);
    const forget = async (): Promise<void> => {
      await expect
        .poll(
          async () => {
            await handles('forget');
            return mount.transport.status().rememberedFiles;
          },
          { timeout: 20_000 },
        )
        .toBe(1);
    };
    await forget();
    expect(await handles('check', mount.mountpoint, kept)).toEqual({ found: 4, stale: 0 });
    await forget();
    // One is another file of the same name; one has gone with its name.
    fs.rmSync(mount.behind('first'));
    fs.writeFileSync(mount.behind('first'), 'another file');
    fs.renameSync(mount.behind('below/third'), mount.behind('elsewhere'));
    const { found, stale } = await handles('check', mount.mountpoint, kept);
    expect({ found, stale }).toEqual({ found: 2, stale: 2 });
    // Looked up by its new name, it is the same node as ever.
    expect(await fs.promises.readFile(mount.under('elsewhere'), 'utf8')).toBe('this is below/third');
    expect(await handles('check', mount.mountpoint, kept)).toEqual({ found: 3, stale: 1 });
  }, 120_000);

  it('of an earlier mount is stale', async () => {
    const place = placeForTest();
    for (const name of ['first', 'second']) fs.writeFileSync(place.behind(name), `this is ${name}`);
    const kept = place.temporary.file('handles');
    await place.mount('--transport', 'kernel');
    await handles('take', place.mountpoint, kept, 'first', 'second');
    expect(await handles('check', place.mountpoint, kept)).toEqual({ found: 2, stale: 0 });
    await place.unmount();
    await place.mount('--transport', 'kernel');
    expect(await handles('check', place.mountpoint, kept)).toEqual({ found: 0, stale: 2 });
    for (const name of ['second', 'first']) await fs.promises.readFile(place.under(name));
    expect(await handles('check', place.mountpoint, kept)).toEqual({ found: 0, stale: 2 });
  }, 180_000);
});
