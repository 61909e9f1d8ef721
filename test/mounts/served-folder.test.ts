/** A folder is served once: a second mount of it, of a part of it, or of more around it is refused in one line that says where it is served. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { run, runOk, veneerOk, veneerPath, veneerRefuses } from '../cli/veneer.ts';
import { soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { writeGuest } from '../mount/guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mount/mounted.ts';

/** A folder with a folder in it, mounted; and a further mountpoint. */
async function servedPlace(): Promise<{ place: MountPlace; second: string }> {
  const place = placeForTest();
  fs.mkdirSync(place.behind('inner/most'), { recursive: true });
  fs.mkdirSync(place.temporary.file('second'));
  await place.mount();
  return { place, second: place.temporary.file('second') };
}

it('a second mount is refused, by whatever path', async () => {
  const { place, second } = await servedPlace();
  const at = `${place.mountpoint} already; a folder is served once`;
  fs.symlinkSync(place.folder, place.temporary.file('link'));
  fs.mkdirSync(place.temporary.file('beside'));
  for (const folder of [place.folder, `${place.folder}/`, place.temporary.file('link')])
    expect(await veneerRefuses('mount', folder, second)).toContain(`is served at ${at}`);
  using elsewhere = new TempFolder();
  for (const folder of [place.behind('inner'), place.behind('inner/most'), place.temporary.path])
    expect(await veneerRefuses('mount', folder, elsewhere.path)).toContain(`as ${place.folder} at ${at}`);
  expect(await veneerRefuses('mount', '--write', 'none', place.folder, second)).toContain(at);
  expect(fs.readdirSync(second)).toEqual([]);
  await veneerOk('mount', place.temporary.file('beside'), second);
  await veneerOk('unmount', second);
  await place.unmount();
  await veneerOk('mount', place.behind('inner'), second);
  expect(await veneerRefuses('mount', place.folder, place.mountpoint)).toContain(`at ${second} already`);
  await veneerOk('unmount', second);
});

it('a bind mount of a served folder, of one inside it, or from another namespace is the same folder', async () => {
  const { place, second } = await servedPlace();
  const bound = place.temporary.file('bound');
  fs.mkdirSync(bound);
  for (const folder of [place.folder, place.behind('inner')]) {
    // In a namespace of its own, which takes the bind mount with it.
    const script = `mount --bind "$1" "$2" && exec "$3" "$4" mount "$2" "$5"`;
    const { status, stderr } = await run('unshare', [
      ...['--mount', '--propagation', 'private', '--pid', '--fork', 'bash', '-c', script, 'bash'],
      ...[folder, bound, process.execPath, veneerPath, second],
    ]);
    expect(status, stderr).toBe(1);
    expect(stderr).toContain(`at ${place.mountpoint} already`);
  }
  expect((await place.status()).folder).toBe(place.folder);
});

it('a server that was killed leaves nothing locked', async () => {
  const { place } = await servedPlace();
  for (let round = 0; round < (soak ? 20 : 1); round++) {
    await place.kill();
    await place.mount();
  }
  await runOk('umount', ['-l', place.mountpoint]);
  await place.mount();
});

it('of two mounts that begin at once, one serves', async () => {
  const place = placeForTest();
  const mountpoints = ['one', 'two', 'three'].map((name) => place.temporary.file(name));
  for (const mountpoint of mountpoints) fs.mkdirSync(mountpoint);
  const ran = await Promise.all(
    mountpoints.map((mountpoint) => run(process.execPath, [veneerPath, 'mount', place.folder, mountpoint])),
  );
  const serving = mountpoints.filter((_, index) => ran[index]?.status === 0);
  expect(serving, ran.map(({ stderr }) => stderr).join('\n')).toHaveLength(1);
  for (const mountpoint of serving) await veneerOk('unmount', mountpoint);
});

it('a fill without a mount and a mount keep each other out', async () => {
  const place = placeForTest();
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  // Held as the fill of another user would hold it: here is no record of it.
  const pidFile = place.temporary.file('pid');
  const holder = ['-c', 'echo $$ >"$2"; exec 9<"$1"; flock -s 9; exec sleep 60', 'bash', place.folder, pidFile];
  const held = run('bash', holder);
  await eventually(() =>
    expect(fs.readFileSync('/proc/locks', 'utf8')).toContain(`:${fs.statSync(place.folder).ino} `),
  );
  try {
    expect(await veneerRefuses('mount', place.folder, place.mountpoint)).toMatch(
      /process \d+ serves it already, or works on its disks; wait for it or stop it$/,
    );
    await veneerOk('fill', 'start', path.join(place.folder, 'vm.vhdx'));
  } finally {
    process.kill(Number(fs.readFileSync(pidFile, 'utf8')));
    await held;
  }
  await place.mount();
});
