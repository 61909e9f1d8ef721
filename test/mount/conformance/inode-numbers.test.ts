/**
 * Two files behind a mount are two to who compares st_ino, wherever they lie: on other file systems below the folder, in btrfs subvolumes,
 * behind bind mounts. Copying programs take one number for one file.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { runOk } from '../../cli/veneer.ts';
import { placeForTest, type MountPlace } from '../mounted.ts';
import { describeTransports, type Transport } from '../transports.ts';

const pairs = 12;

/** Of every name of a tree: its path, device and number, and the number that the listing of its folder tells. */
const walk = `
import json, os, sys
found = []
def look(folder, below):
    with os.scandir(folder) as entries:
        for entry in entries:
            stat = entry.stat(follow_symlinks=False)
            name = os.path.join(below, entry.name)
            found.append([name, stat.st_dev, str(stat.st_ino), str(entry.inode())])
            if entry.is_dir(follow_symlinks=False): look(entry.path, name)
look(sys.argv[1], '')
json.dump(found, sys.stdout)
`;

interface Found {
  readonly device: number;
  readonly number: string;
  readonly listed: string;
}

async function numbersOf(folder: string): Promise<Map<string, Found>> {
  const found = JSON.parse(await runOk('/usr/bin/python3', ['-c', walk, folder])) as [string, number, string, string][];
  return new Map(found.map(([name, device, number, listed]) => [name, { device, number, listed }]));
}

function system(command: string, ...args: readonly string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  expect(status, `${command}: ${stderr}`).toBe(0);
}

function mountBelow(place: MountPlace, name: string, ...args: readonly string[]): string {
  const at = place.behind(name);
  if (!fs.existsSync(at)) fs.mkdirSync(at);
  system('mount', ...args, at);
  onTestFinished(() => void spawnSync('umount', ['-l', at]));
  return at;
}

/** Files of two names each; the next file system numbers its own from the same number on. */
function writePairs(folder: string): void {
  for (let pair = 0; pair < pairs; pair++) {
    fs.writeFileSync(path.join(folder, `${pair}`), `${folder} ${pair}`);
    fs.linkSync(path.join(folder, `${pair}`), path.join(folder, `${pair} again`));
  }
}

/** One number for one file, and for no other; the listing says the same. */
async function expectApart(place: MountPlace, transport: Transport): Promise<void> {
  const behind = await numbersOf(place.folder);
  const under = await numbersOf(place.mountpoint);
  expect([...under.keys()].sort()).toEqual([...behind.keys()].sort());
  const files = new Map<string, string>();
  for (const [name, { number, listed }] of under) {
    const { device, number: own } = behind.get(name) ?? expect.fail(name);
    const file = `${device}:${own}`;
    expect(files.get(number) ?? file, `${name}: has the number ${number} of another file`).toBe(file);
    files.set(number, file);
    expect(listed, `${name}: the listing`).toBe(number);
    if (transport.name === 'kernel' && device === fs.statSync(place.folder).dev) expect(number).toBe(own);
  }
  expect(files.size).toBe(new Set([...behind.values()].map(({ device, number }) => `${device}:${number}`)).size);
}

/** Copied with its hard links through the mount, and from behind it. */
async function expectSameCopy(place: MountPlace): Promise<void> {
  const [through, direct] = [place.temporary.file('through'), place.temporary.file('direct')];
  await runOk('cp', ['-a', place.mountpoint, through]);
  await runOk('cp', ['-a', place.folder, direct]);
  await runOk('diff', ['-r', through, direct]);
  const links = async (folder: string): Promise<string[]> =>
    [...(await numbersOf(folder)).keys()].map((name) => `${name} ${fs.lstatSync(path.join(folder, name)).nlink}`);
  expect((await links(through)).sort()).toEqual((await links(direct)).sort());
}

describeTransports('inode numbers', (transport) => {
  it.skipIf(process.getuid?.() !== 0)('are apart on other file systems, and behind bind mounts', async () => {
    const place = placeForTest();
    writePairs(place.folder);
    for (const name of ['first', 'second']) writePairs(mountBelow(place, name, '-t', 'tmpfs', 'tmpfs'));
    mountBelow(place, 'bound', '--bind', place.behind('second'));
    await place.mount(...transport.options);
    await expectApart(place, transport);
    const same = await runOk('find', [place.mountpoint, '-samefile', place.under('first/3')]);
    expect(same.trim().split('\n').sort()).toEqual([place.under('first/3'), place.under('first/3 again')]);
    // Mounted when the folders have been listed already.
    writePairs(mountBelow(place, 'third', '-t', 'tmpfs', 'tmpfs'));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await expectApart(place, transport);
    await expectSameCopy(place);
  });

  it.skipIf(process.getuid?.() !== 0)(
    'are apart in btrfs subvolumes, whose files have the same numbers',
    async (ctx) => {
      const place = placeForTest();
      const disk = place.temporary.file('disk');
      fs.writeFileSync(disk, '');
      fs.truncateSync(disk, 160 * MiB);
      const made = spawnSync('mkfs.btrfs', ['-q', disk], { encoding: 'utf8' });
      const at = place.behind('volume');
      fs.mkdirSync(at);
      const mounted = made.status === 0 && spawnSync('mount', ['-o', 'loop', disk, at]).status === 0;
      if (!mounted) ctx.skip(`no btrfs here: ${made.stderr}`);
      onTestFinished(() => void spawnSync('umount', ['-l', at]));
      writePairs(at);
      system('btrfs', 'subvolume', 'create', path.join(at, 'one'));
      writePairs(path.join(at, 'one'));
      // A snapshot's files are numbered as those that it was made of.
      system('btrfs', 'subvolume', 'snapshot', path.join(at, 'one'), path.join(at, 'two'));
      fs.appendFileSync(path.join(at, 'two/3'), ' changed');
      await place.mount(...transport.options);
      await expectApart(place, transport);
      await expectSameCopy(place);
    },
  );
});
