/** What ends a mount from outside, and where there is too little of something: descriptors, room for a path, rights, programs. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { createPluginFile } from '../../../src/plugin/create.ts';
import { connectionOf } from '../../../src/mounts/mountpoint.ts';
import { run, runOk, veneerPath } from '../../cli/veneer.ts';
import { soak } from '../../seeded.ts';
import { writeGuest } from '../guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports, describeTransports } from '../transports.ts';

const isRoot = process.getuid?.() === 0;

async function expectGone(place: MountPlace): Promise<void> {
  await eventually(() => {
    expect(place.isMounted).toBe(false);
    expect(place.servers()).toEqual([]);
    expect(place.stateFiles()).toEqual(['log']);
  }, 20_000);
}

describeTransports('at its edges, a mount', (transport) => {
  const options = transport.options;
  const isKernel = transport.name === 'kernel';

  it.skipIf(!isRoot)('ends when its connection is aborted, and leaves nothing', async () => {
    const place = placeForTest();
    await place.mount(...options);
    const number = connectionOf(place.mountpoint) ?? expect.fail('has no connection');
    const abort = `mount -t fusectl none /sys/fs/fuse/connections && echo 1 >/sys/fs/fuse/connections/${number}/abort`;
    await runOk('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', abort]);
    await expectGone(place);
  });

  it.skipIf(!isRoot)('ends when it is unmounted by force, and leaves nothing', async () => {
    const place = placeForTest();
    await place.mount(...options);
    const handle = await fs.promises.open(place.mountpoint);
    await run('umount', ['-f', place.mountpoint]);
    await handle.close().catch(() => undefined);
    await expectGone(place);
  });

  it.skipIf(!isRoot || !isKernel)('needs no fusermount3 where root mounts and unmounts', async () => {
    const place = placeForTest();
    fs.writeFileSync(place.behind('file'), 'contents');
    const without = ['PATH=/nowhere', process.execPath, veneerPath];
    await runOk('env', [...without, 'mount', ...options, place.folder, place.mountpoint]);
    expect(await fs.promises.readFile(place.under('file'), 'utf8')).toBe('contents');
    await runOk('env', [...without, 'unmount', place.mountpoint]);
    await expectGone(place);
  });

  it.skipIf(!isKernel)('works in folders whose path is too long to be told, but for disks', async () => {
    const place = placeForTest();
    await writeGuest(place.folder, place.temporary.file('disk.raw'));
    createPluginFile(place.behind('vm.spi'), place.behind('disk.raw'));
    await place.mount(...options);
    const script = path.join(import.meta.dirname, '../deep_folder.py');
    const said = await runOk('python3', [script, place.mountpoint, place.folder, place.behind('disk.raw')]);
    expect(JSON.parse(said)).toEqual({
      names: ['disk.raw', 'linked', 'old', 'sub', 'symbolic'],
      old: 'behind',
      linked: 'behind',
      moved: 'thro',
      mode: '0o100600',
      disk: 'ENAMETOOLONG',
      absent: 'ENOENT',
    });
    await place.unmount();
    await runOk('rm', ['-rf', place.folder]);
  });
});

describeAboveTransports('where there is too little or too much, a mount', ({ options }) => {
  it.skipIf(!isRoot)('is refused with one line where too few files may be open', async () => {
    const place = placeForTest();
    // Without this right root may not raise the limit.
    const limited = ['--nofile=40:40', 'setpriv', '--bounding-set', '-sys_resource', process.execPath, veneerPath];
    const { status, stderr } = await run('prlimit', [...limited, 'mount', ...options, place.folder, place.mountpoint]);
    expect(stderr).toMatch(/^veneer: this process may open 40 files at once, .*ulimit -n \d+.*\n$/);
    expect(status).toBe(1);
    expect(place.isMounted).toBe(false);
  });

  it.skipIf(!isRoot)('says that its folder is read-only, and serves it', async () => {
    const place = placeForTest();
    fs.writeFileSync(place.behind('file'), 'contents');
    const unmount = (): unknown => spawnSync('umount', [place.folder]);
    onTestFinished(() => void unmount());
    await runOk('mount', ['--bind', place.folder, place.folder]);
    await runOk('mount', ['-o', 'remount,ro,bind', place.folder]);
    expect(await place.mountByTool(...options)).toContain(`writes are refused: ${place.folder} is read-only\n`);
    expect(await fs.promises.readFile(place.under('file'), 'utf8')).toBe('contents');
    await expect(fs.promises.writeFile(place.under('new'), '')).rejects.toThrow('EROFS');
    await place.unmount();
    expect(await place.mountByTool(...options, '--write', 'none')).not.toContain('writes are refused');
    await place.unmount();
    unmount();
  });

  it(`costs no more in a folder of ${soak ? '120,000' : '6,000'} files`, { timeout: 300_000 }, async () => {
    const place = placeForTest();
    for (let file = 0; file < (soak ? 120_000 : 6000); file++)
      fs.writeFileSync(place.behind(`some file ${file}`), 'x'.repeat(100));
    await writeGuest(place.folder, place.temporary.file('disk.raw'));
    await place.mount(...options, '--present', 'qcow2');
    expect(place.serverMs()).toBeLessThan(3000);
    await eventually(async () => {
      expect((await place.status()).files.map((file) => file.name)).toContain('vm.vhdx');
    }, 60_000);
    const beforeMs = place.serverMs();
    const count = 50;
    for (let made = 0; made < count; made++) {
      await fs.promises.writeFile(place.under(`made ${made}.qcow2`), 'new');
      await fs.promises.rm(place.under(`made ${made}.qcow2`));
    }
    expect((place.serverMs() - beforeMs) / count, 'processor time of a file made and removed').toBeLessThan(10);
    expect((await place.status()).residentBytes).toBeLessThan(400 * 2 ** 20);
  });
});
