/** One odd entry of a folder never keeps the others from being mounted, listed, read, told of or pruned. */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { describe, expect, it, onTestFinished } from 'vitest';
import { runOk, veneerOk } from '../../cli/veneer.ts';
import { soak } from '../../seeded.ts';
import { writeExpected, writeGuest } from '../guest-disk.ts';
import { eventually, MountPlace, placeForTest } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';

describeAboveTransports('a folder with odd entries', ({ options }) => {
  it('is mounted, listed, told of and pruned: a dead mount, pipes, links in circles, folders that nobody may open', async () => {
    const place = placeForTest();
    await makeOddEntries(place);
    const expected = place.temporary.file('expected');
    writeExpected(place.behind('vm.vhdx'), place.temporary.file('disk.raw'), expected);
    await place.mount(...options);
    const shown = (await fs.promises.readdir(place.mountpoint)).sort();
    expect(shown).toEqual(expect.arrayContaining(['vm.vhdx', 'pipe', 'loop', 'nowhere', 'closed', 'line\nbreak']));
    await runOk('cmp', [place.under('vm.vhdx'), expected]);
    await runOk('cmp', [place.under('line\nbreak'), place.behind('line\nbreak')]);
    await expect(fs.promises.stat(place.under('no-such-file'))).rejects.toThrow('ENOENT');
    await expect(fs.promises.stat(place.under('dead'))).rejects.toThrow(/ENOTCONN|ENOENT/);
    await fs.promises.writeFile(place.under('made'), 'x');
    await fs.promises.unlink(place.under('made'));
    expect((await place.status()).files.map(({ name }) => name)).toContain('vm.vhdx');
    expect(await veneerOk('chain', 'list', place.folder)).toMatch(/2 images/);
    await place.unmount();
    expect(await veneerOk('chain', 'prune', '--keep-last', '1', place.folder)).toMatch(/stays/);
  });
});

describe('files that come and go', () => {
  it('while a folder is mounted, listed, told of and pruned are in nobody’s way', async () => {
    const place = placeForTest();
    await writeGuest(place.folder, place.temporary.file('disk.raw'));
    const churn = [
      'import os, sys, itertools',
      'for n in itertools.count():',
      '    p = os.path.join(sys.argv[1], "come-and-go-%d.vhdx" % (n % 40))',
      '    open(p, "w").write("{\\"veneer\\":\\"plugin file\\"" + "x" * 200)',
      '    if n % 3: os.remove(p)',
    ].join('\n');
    const child = spawn('python3', ['-c', churn, place.folder]);
    onTestFinished(() => void child.kill('SIGKILL'));
    for (let round = 0; round < (soak ? 20 : 1); round++) {
      await place.mount();
      for (let count = 0; count < 10; count++) await fs.promises.readdir(place.mountpoint);
      expect((await place.status()).files.map(({ name }) => name)).toContain('vm.vhdx');
      await veneerOk('chain', 'list', place.folder);
      await veneerOk('chain', 'prune', '--keep-last', '1', place.folder);
      await place.unmount();
    }
    expect(child.exitCode).toBeNull();
  });
});

async function makeOddEntries(place: MountPlace): Promise<void> {
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  await runOk('mkfifo', [place.behind('pipe')]);
  fs.symlinkSync('loop', place.behind('loop'));
  fs.symlinkSync('nowhere/at/all', place.behind('nowhere'));
  fs.mkdirSync(place.behind('closed'), { mode: 0 });
  fs.mkdirSync(place.behind('dead'));
  fs.writeFileSync(place.behind('line\nbreak'), 'x'.repeat(5000));
  const inner = new MountPlace();
  onTestFinished(() => inner.end());
  await veneerOk('mount', inner.folder, place.behind('dead'));
  onTestFinished(() => runOk('umount', ['-l', place.behind('dead')]).then(() => undefined));
  const pid = await serverOf(place.behind('dead'));
  process.kill(pid, 'SIGKILL');
  await eventually(async () => await expect(fs.promises.stat(place.behind('dead'))).rejects.toThrow('ENOTCONN'));
}

async function serverOf(mountpoint: string): Promise<number> {
  const [status] = JSON.parse(await veneerOk('status', '--json', mountpoint)) as { pid: number }[];
  if (status === undefined) expect.fail(`nothing is mounted at ${mountpoint}`);
  return status.pid;
}
