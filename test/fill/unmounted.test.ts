/** The disks of a folder that nobody has mounted, as a fill finds them: what stands for no disk is refused in one line, and nothing is made of it. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { KiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import type { FillStatus } from '../../src/fill/fill-status.ts';
import { openUnmountedFills, type UnmountedFills } from '../../src/fill/unmounted.ts';
import { createPluginFile, type PluginOptions } from '../../src/plugin/create.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const images = new TempFolder();
afterAll(() => images.remove());

beforeAll(async () => {
  images.write('raw', new Seeded('unmounted').bytes(512 * KiB));
  await createImage(images.file('raw'), images.file('vm.spf'));
});

class Place {
  readonly temporary = new TempFolder();
  readonly folder = this.temporary.file('folder');
  readonly fills: UnmountedFills;
  isGivenBack = false;

  constructor() {
    fs.mkdirSync(this.folder);
    fs.copyFileSync(images.file('vm.spf'), this.file('vm.spf'));
    const taken = { close: () => void (this.isGivenBack = true) };
    this.fills = openUnmountedFills(this.folder, taken, { credentials: [], chains: [] }, () => undefined);
    onTestFinished(async () => {
      await this.fills.close();
      expect(this.isGivenBack).toBe(true);
      this.temporary.remove();
    });
  }

  file(name: string): string {
    return path.join(this.folder, name);
  }

  plugin(name: string, options: PluginOptions = {}): string {
    createPluginFile(this.file('vm.spf'), this.file(name), options);
    return this.file(name);
  }

  async status(file: string): Promise<FillStatus[]> {
    return await this.fills.answers['fill.status']({ file });
  }
}

const refused: ReadonlyArray<readonly [what: string, arrange: (place: Place) => string, says: RegExp]> = [
  ['an image', () => 'vm.spf', /^vm\.spf: is not a plugin file; make one with: veneer plugin create$/],
  [
    'a folder',
    (place) => {
      fs.mkdirSync(place.file('vm.raw'));
      return 'vm.raw';
    },
    /^vm\.raw: is not a plugin file/,
  ],
  [
    'a link to a plugin file',
    (place) => {
      fs.symlinkSync(place.plugin('vm.raw'), place.file('link.raw'));
      return 'link.raw';
    },
    /^link\.raw: is not a plugin file/,
  ],
  [
    'an unfinished file',
    (place) => {
      fs.renameSync(place.plugin('vm.raw'), place.file('vm.raw.veneer-part'));
      return 'vm.raw.veneer-part';
    },
    /^vm\.raw\.veneer-part: is not a plugin file/,
  ],
  [
    'the record of a plugin file',
    (place) => {
      fs.renameSync(place.plugin('vm.raw'), place.file('vm.raw.finalized'));
      return 'vm.raw.finalized';
    },
    /^vm\.raw\.finalized: is not a plugin file/,
  ],
  ['a name that nothing has', () => 'no.raw', /ENOENT/],
  [
    'a plugin file that is damaged',
    (place) => {
      const plugin = place.plugin('vm.raw');
      fs.writeFileSync(plugin, fs.readFileSync(plugin, 'utf8').replace('"version": 1', '"version": 7'));
      return 'vm.raw';
    },
    /vm\.raw: version at byte 0: .*; make the plugin file again$/,
  ],
  [
    'a plugin file with two names',
    (place) => {
      fs.linkSync(place.plugin('vm.raw'), place.file('other.raw'));
      return 'vm.raw';
    },
    /^vm\.raw: its plugin file has several names/,
  ],
  [
    'a plugin file that takes no writes',
    (place) => path.basename(place.plugin('vm.raw', { write: 'none' })),
    /^vm\.raw: is read-only/,
  ],
];

it.each(refused)('%s is refused', async (_what, arrange, says) => {
  const place = new Place();
  const file = arrange(place);
  const before = fs.readdirSync(place.folder);
  const ask = { file };
  for (const failed of await Promise.allSettled([place.status(file), place.fills.answers['fill.start'](ask)])) {
    expect(failed.status).toBe('rejected');
    expect(failed.status === 'rejected' && (failed.reason as Error).message).toMatch(says);
  }
  expect(fs.readdirSync(place.folder)).toEqual(before);
});

it('a plugin file whose writes are thrown away is not filled', async () => {
  const place = new Place();
  place.plugin('vm.raw', { write: 'discard' });
  await expect(place.fills.answers['fill.start']({ file: 'vm.raw' })).rejects.toThrow(/are to be discarded/);
});

it('a fill goes on reading its image where the folder was moved', async () => {
  const place = new Place();
  place.plugin('vm.raw');
  await place.fills.answers['fill.start']({ file: 'vm.raw' });
  await place.fills.answers['fill.pause']({ file: 'vm.raw' });
  fs.renameSync(place.folder, place.temporary.file('moved'));
  await place.fills.answers['fill.resume']({ file: 'vm.raw' });
  await expect
    .poll(async () => (await place.status('vm.raw')).map(({ state }) => state), { timeout: 60_000 })
    .toEqual(['complete']);
});

it('a disk in a folder below is copied whole, and put in its place, also where the folder was moved meanwhile', async () => {
  const place = new Place();
  fs.mkdirSync(place.file('below'));
  place.plugin('below/vm.raw');
  const ask = { file: 'below/vm.raw' };
  const [begun] = await place.fills.answers['fill.start'](ask);
  expect([begun?.name, begun?.state]).toEqual(['below/vm.raw', 'filling']);
  await expect
    .poll(async () => (await place.status(ask.file)).map(({ state }) => state), { timeout: 60_000 })
    .toEqual(['complete']);
  const [proved] = await place.fills.answers['fill.verify'](ask);
  expect(proved?.proof.expectedSha256).toBe(proved?.proof.replacementSha256);
  const moved = place.temporary.file('moved');
  fs.renameSync(place.folder, moved);
  const { record } = await place.fills.answers['fill.finalize'](ask);
  expect(record).toBe(path.join(moved, 'below/vm.raw.finalized'));
  expect(fs.readFileSync(path.join(moved, 'below/vm.raw'))).toEqual(fs.readFileSync(images.file('raw')));
  expect(await place.fills.answers['fill.finalize'](ask)).toEqual({ record, decrypted: [] });
});
