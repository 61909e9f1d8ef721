import fs from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { InProcessMount } from './in-process.ts';

const maxNodes = 200;
const fileCount = 3000;
const openAtOnce = 20;

let mount: InProcessMount;

beforeEach(async () => {
  mount = await InProcessMount.start({ workers: 2, maxNodes });
});
afterEach(async () => mount.end());

it('a folder of more files than may be remembered is listed and looked at whole, and open files stay open', async () => {
  fs.mkdirSync(mount.behind('many'));
  for (let index = 0; index < fileCount; index++) fs.writeFileSync(mount.behind(`many/${index}`), `file ${index}`);
  const first = await fs.promises.open(mount.under('many/0'));
  const names = await fs.promises.readdir(mount.under('many'));
  expect(names.length).toBe(fileCount);
  for (const name of names) {
    const { size } = await fs.promises.stat(mount.under(`many/${name}`));
    expect(size).toBe(`file ${name}`.length);
  }
  // Those that are open at once cannot be forgotten.
  for (let from = 0; from < fileCount; from += openAtOnce) {
    const contents = names.slice(from, from + openAtOnce).map(async (name) => {
      expect(await fs.promises.readFile(mount.under(`many/${name}`), 'utf8')).toBe(`file ${name}`);
    });
    await Promise.all(contents);
  }
  expect(mount.transport.status().rememberedFiles).toBeLessThanOrEqual(maxNodes);
  expect((await first.readFile()).toString()).toBe('file 0');
  await first.close();
}, 120_000);
