/** What a name, a label or a file says of itself is printed as text by every command: nothing in it reaches the terminal as it is. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { mountFiles } from '../../src/mounts/mount-record.ts';
import { placeForTest } from '../mount/mounted.ts';
import { veneer, type Ran } from './veneer.ts';

/** Clears the screen, sets the title, turns the direction, is a C1 control, ends the line and says what is not so. */
const hostile = '\x1b[2J\x1b]0;x\x07\u202Etxt\u{9b}31m\nveneer: all is well\r\x7f\u2028';
const odd = /[^\P{C}\n]|\p{Zl}|\p{Zp}/u;

it('by every command, on both outputs, in JSON and in the log', async () => {
  const place = placeForTest(`mount${hostile}`);
  const file = (name: string): string => place.behind(`${name}${hostile}`);
  const plugin = file('vm') + '.raw';
  const key = place.temporary.write('key', Buffer.alloc(64, 5));
  fs.chmodSync(key, 0o600);
  fs.writeFileSync(file('disk'), Buffer.alloc(2 ** 20, 7));
  const said: Ran[] = [];
  const all = async (...args: string[]): Promise<Ran> => {
    const ran = await veneer(...args);
    const text = ran.stdout + ran.stderr;
    expect(text, JSON.stringify([args, text])).not.toMatch(odd);
    expect(text, JSON.stringify([args, text])).not.toMatch(/^veneer: all is well/m);
    said.push(ran);
    return ran;
  };
  const image = `${file('vm')}.spf`;
  await all('image', 'create', file('disk'), image, '--encrypt', '--key-file', key);
  await all('key', 'add', image, '--key-file', key, '--new-key-file', key, '--label', hostile);
  for (const json of [[], ['--json']]) {
    await all('key', 'list', image, ...json);
    await all('image', 'info', image, ...json);
    await all('chain', 'list', place.folder, ...json);
  }
  await all('image', 'scrub', image);
  await all('image', 'verify', image, '--key-file', key);
  await all('image', 'extract', image, file('out'), '--key-file', key);
  await all('plugin', 'create', image, plugin, '--replacement', 'plain');
  await all('plugin', 'show', plugin);
  await all('plugin', 'show', plugin, '--json');
  await all('differencing', 'create', plugin, `${file('child')}.qcow2`);
  await all('reconfigure', plugin, '--target', 'qemu', '--key-file', key);
  await all('mount', '--key-file', key, place.folder, place.mountpoint);
  await fs.promises.truncate(`${place.mountpoint}/vm${hostile}.raw`, 2 ** 20 + 512);
  await all('status', place.mountpoint);
  await all('status', '--json', place.mountpoint);
  await all('fill', 'start', plugin);
  await all('fill', 'status', plugin);
  await all('fill', 'status', '--watch', plugin);
  await all('fill', 'verify', plugin);
  await all('finalize', plugin);
  await all('unmount', place.mountpoint);
  await all('chain', 'prune', place.folder, '--keep-last', '1');
  const succeeded = said.filter(({ status }) => status === 0).length;
  expect(said.length - succeeded, JSON.stringify(said.filter(({ status }) => status !== 0))).toBeLessThanOrEqual(2);
  // And what is refused, by our words, the system's and commander's.
  for (const args of [
    ['image', 'info', `${hostile}missing`],
    ['mount', hostile, hostile],
    ['plugin', 'create', image, hostile],
    [hostile],
    ['image', 'create', `--${hostile}`],
    ['mount', '--transport', hostile, 'a', 'b'],
    ['--debug', 'plugin', 'show', file('disk')],
    ['boot', file('disk')],
  ])
    expect((await all(...args)).status).toBe(1);
  expect(fs.readFileSync(mountFiles(place.mountpoint).log, 'utf8')).not.toMatch(odd);
});
