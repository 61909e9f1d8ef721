/** Progress: one line for each 10 % where nobody watches, a bar with rate and time left on a terminal. */
import fs from 'node:fs';
import { beforeAll, expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { structuresOf } from '../backup/crafted-image.ts';
import { change } from '../mount/guest-disk.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { run, veneer, veneerPath } from './veneer.ts';

let folder: TempFolder;
let image: string;

beforeAll(async () => {
  folder = new TempFolder();
  image = folder.file('vm.spf');
  const random = new Seeded('progress');
  const raw = folder.write('disk.raw', random.bytes(200 * MiB));
  const { status, stderr } = await veneer('image', 'create', '--codec', 'none', raw, image);
  expect(status, stderr).toBe(0);
  fs.writeFileSync(folder.file('create.log'), stderr);
  return () => folder.remove();
});

/** The percentages of lines such as `creating: 10 % (20 MiB of 200 MiB)`. */
function percentages(text: string, action: string): number[] {
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const match = new RegExp(`^${action}: (\\d+) % \\([\\d.]+ [KMG]?i?B of [\\d.]+ MiB\\)$`).exec(line);
      if (match === null) expect.fail(`not a line of progress: ${line}`);
      return Number(match[1]);
    });
}

it('create prints each ten per cent at most once, in order, up to 100', () => {
  const seen = percentages(fs.readFileSync(folder.file('create.log'), 'utf8'), 'creating');
  expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
  for (const percentage of seen) expect(percentage % 10).toBe(0);
  expect(seen.at(-1)).toBe(100);
});

it('extract prints all ten lines', async () => {
  const { stderr } = await veneer('image', 'extract', image, folder.file('out.raw'));
  expect(percentages(stderr, 'extracting')).toEqual([10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
});

it('verify prints ascending lines up to 100', async () => {
  const { stderr, stdout } = await veneer('image', 'verify', image);
  const seen = percentages(stderr, 'verifying');
  expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
  expect(seen.at(-1)).toBe(100);
  expect(stdout).toMatch(/^[^\n]+: sound \([^\n]+\n$/);
});

/** Runs the tool on a terminal of its own; returns all that appeared there. */
async function onTerminal(...args: string[]): Promise<{ status: number | undefined; shown: string }> {
  const quoted = [process.execPath, veneerPath, ...args].map((arg) => `'${arg}'`).join(' ');
  const { status, stdout } = await run('script', ['-qec', quoted, '/dev/null']);
  return { status, shown: stdout };
}

it.each([
  ['creating', () => ['create', '--force', folder.file('disk.raw'), folder.file('again.spf')]],
  ['verifying', () => ['verify', image]],
  ['extracting', () => ['extract', '--force', image, folder.file('out.raw')]],
] as const)(
  'a terminal shows a bar while %s, with rate and time left, and has its cursor back',
  async (action, args) => {
    const { status, shown } = await onTerminal('image', ...args());
    expect(status, shown).toBe(0);
    expect(shown).toMatch(new RegExp(`${action} \\[[^\\]]+\\] \\d+% \\| [\\d.]+ [KMG]iB/s \\| \\d+ s left`));
    expect(shown.lastIndexOf('\u001b[?25h')).toBeGreaterThan(shown.lastIndexOf('\u001b[?25l'));
    expect(shown).not.toContain(`${action}: `);
  },
);

it.each(['verify', 'extract'] as const)('an error in the middle of %s ends the bar, and the tool', async (command) => {
  const damaged = folder.file('damaged.spf');
  fs.copyFileSync(image, damaged);
  // The index of the last blocks: whatever comes before it is done by then.
  const kinds = structuresOf(fs.readFileSync(damaged)).filter(({ kind }) => kind === 'leaf');
  change(damaged, (kinds.at(-1)?.offset ?? 0) + 100, Buffer.from('damage'));
  const { status, shown } = await onTerminal(
    'image',
    command,
    damaged,
    ...(command === 'extract' ? [folder.file('no.raw')] : []),
  );
  expect(status).toBe(1);
  expect(shown).toMatch(/index leaf \d+.*checksum is 0x/);
  expect(shown.lastIndexOf('\u001b[?25h')).toBeGreaterThanOrEqual(shown.lastIndexOf('\u001b[?25l'));
});
