/** A plugin file's pointer is followed inside the mounted folder, into folders that the mount allows, and nowhere else. */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { run, runOk, veneerPath } from '../cli/veneer.ts';
import { change, readPart, writeGuest, writePlugin } from '../mount/guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mount/mounted.ts';

const payload = 5 * MiB;

/** Images lie outside, in a folder beside the mounted one. */
async function placeWithImagesOutside(): Promise<{ place: MountPlace; outside: string; raw: string }> {
  const place = placeForTest();
  const outside = place.temporary.file('outside');
  const raw = place.temporary.file('disk.raw');
  fs.mkdirSync(outside);
  await writeGuest(outside, raw);
  return { place, outside, raw };
}

/** A plugin file over `vm.spi` with another pointer. */
function point(plugin: string, target: string, like: string): void {
  const contents = JSON.parse(fs.readFileSync(like, 'utf8')) as { image: { path: string } };
  contents.image.path = target;
  fs.writeFileSync(plugin, JSON.stringify(contents, null, 2));
}

/** At open where the pointer's own text leads outside; at the first read where a link does, which libfuse 2 then calls EIO. */
async function expectForbidden(place: MountPlace, name: string): Promise<void> {
  await expect(readPart(place.under(name), payload, 512), name).rejects.toMatchObject({
    code: expect.stringMatching(/^(EACCES|EIO)$/) as string,
  });
  await place.expectComplaint(new RegExp(`${name}.*outside the mounted folder; mount with --allow-path`));
  // It is shown, and can be deleted, like any other.
  expect((await fs.promises.stat(place.under(name))).size).toBeGreaterThan(payload);
}

async function expectReads(place: MountPlace, name: string, raw: string): Promise<void> {
  const said = await runOk('qemu-img', ['compare', '-f', 'vhdx', '-F', 'raw', place.under(name), raw]);
  expect(said).toContain('Images are identical');
}

it('".." and absolute pointers out of the folder are refused at open, and followed where the mount allows', async () => {
  const { place, outside, raw } = await placeWithImagesOutside();
  const like = path.join(outside, 'vm.vhdx');
  fs.mkdirSync(place.behind('sub'));
  point(place.behind('up.vhdx'), '../outside/vm.spi', like);
  point(place.behind('round.vhdx'), 'sub/../../outside/vm.spi', like);
  point(place.behind('absolute.vhdx'), path.join(outside, 'vm.spi'), like);
  const names = ['up.vhdx', 'round.vhdx', 'absolute.vhdx'];
  await place.mount();
  for (const name of names) {
    await expect(fs.promises.open(place.under(name)), name).rejects.toMatchObject({ code: 'EACCES' });
    await expectForbidden(place, name);
  }
  await place.unmount();
  await place.mount('--allow-path', outside);
  for (const name of names) await expectReads(place, name, raw);
});

it('pointers into the folder are followed, however they are spelled', async () => {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  fs.mkdirSync(place.behind('sub'));
  const like = place.behind('vm.vhdx');
  point(place.behind('sub/up.vhdx'), '../vm.spi', like);
  point(place.behind('dot.vhdx'), './sub/.././vm.spi', like);
  point(place.behind('absolute.vhdx'), place.behind('vm.spi'), like);
  await place.mount();
  for (const name of ['sub/up.vhdx', 'dot.vhdx', 'absolute.vhdx']) await expectReads(place, name, raw);
});

it('a link to an image outside is refused, and followed where the mount allows; one inside is followed', async () => {
  const { place, outside, raw } = await placeWithImagesOutside();
  const like = path.join(outside, 'vm.vhdx');
  fs.symlinkSync(path.join(outside, 'vm.spi'), place.behind('link.spi'));
  fs.symlinkSync(path.join(outside, 'vm.spf'), place.behind('vm.spf')); // a parent lies beside the name that is pointed to
  fs.symlinkSync('../outside', place.behind('folder'));
  point(place.behind('image-link.vhdx'), 'link.spi', like);
  point(place.behind('folder-link.vhdx'), 'folder/vm.spi', like);
  await place.mount();
  for (const name of ['image-link.vhdx', 'folder-link.vhdx']) await expectForbidden(place, name);
  await place.unmount();
  // Under another name of the same folder, too.
  fs.symlinkSync('outside', place.temporary.file('alias'));
  point(place.behind('up.vhdx'), '../outside/vm.spi', like);
  await place.mount('--allow-path', place.temporary.file('alias'));
  for (const name of ['image-link.vhdx', 'folder-link.vhdx', 'up.vhdx']) await expectReads(place, name, raw);

  const inside = placeForTest();
  await writeGuest(inside.folder, inside.temporary.file('disk.raw'));
  fs.mkdirSync(inside.behind('images'));
  for (const name of ['vm.spf', 'vm.spi']) fs.renameSync(inside.behind(name), inside.behind(`images/${name}`));
  fs.symlinkSync('images/vm.spi', inside.behind('newest'));
  fs.symlinkSync('images', inside.behind('folder'));
  point(inside.behind('folder.vhdx'), 'folder/vm.spi', inside.behind('vm.vhdx'));
  await inside.mount();
  await expectReads(inside, 'folder.vhdx', inside.temporary.file('disk.raw'));
});

it('a parent that is a link to outside is refused, though the newest image lies inside', async () => {
  const { place, outside, raw } = await placeWithImagesOutside();
  for (const name of ['vm.spi', 'vm.vhdx']) fs.copyFileSync(path.join(outside, name), place.behind(name));
  fs.symlinkSync(path.join(outside, 'vm.spf'), place.behind('vm.spf'));
  await place.mount();
  await expectForbidden(place, 'vm.vhdx');
  await place.unmount();
  await place.mount('--allow-path', outside);
  await expectReads(place, 'vm.vhdx', raw);
});

it('a folder that is allowed but away costs only what points into it', async () => {
  const place = placeForTest();
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  await place.mount('--allow-path', place.temporary.file('not mounted yet'));
  await expectReads(place, 'vm.vhdx', place.temporary.file('disk.raw'));
});

it('files of the system are never opened, whatever a plugin file says', async () => {
  const place = placeForTest();
  const secret = place.temporary.file('secret');
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  fs.writeFileSync(secret, `a secret ${'x'.repeat(64 * KiB)}`);
  const like = place.behind('vm.vhdx');
  const targets = ['/etc/shadow', secret, '../secret', '/dev/mem', '/proc/self/environ'];
  for (const [index, target] of targets.entries()) {
    point(place.behind(`direct ${index}.vhdx`), target, like);
    fs.symlinkSync(target, place.behind(`link ${index}`));
    point(place.behind(`linked ${index}.vhdx`), `link ${index}`, like);
  }
  const trace = place.temporary.file('trace');
  const args = ['-f', '-qq', '-o', trace, '-e', 'trace=open,openat,openat2', process.execPath, veneerPath];
  const child = spawn('strace', [...args, 'mount', '--foreground', place.folder, place.mountpoint], {
    stdio: 'ignore',
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  await eventually(() => expect(place.stateFiles()).toContain('socket'), 20_000);
  const names = fs.readdirSync(place.folder).filter((file) => /^(direct|linked) .*\.vhdx$/.test(file));
  expect(names).toHaveLength(2 * targets.length);
  for (const name of names)
    await expect(readPart(place.under(name), payload, 512), name).rejects.toMatchObject({
      code: expect.stringMatching(/^(EACCES|EIO)$/) as string,
    });
  await runOk('ls', ['-lL', place.mountpoint]).catch(() => undefined);
  await place.unmount();
  const opened = fs.readFileSync(trace, 'utf8');
  expect(opened).toContain('direct 0.vhdx');
  for (const path of ['/etc/shadow', secret, '/dev/mem', '/environ']) expect(opened).not.toContain(`"${path}"`);
  for (const line of opened.split('\n').filter((text) => /"[^"]*\/link \d"/.test(text)))
    expect(line, 'a link is not followed').toMatch(/O_NOFOLLOW|= -1/);
}, 90_000);

it('another image in the place of the one it was made for is refused', async () => {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  const twin = place.temporary.file('twin.spf');
  await createImage(raw, twin);
  fs.renameSync(twin, place.behind('vm.spi'));
  await place.mount();
  await expect(readPart(place.under('vm.vhdx'), payload, 512)).rejects.toMatchObject({ code: 'EIO' });
  await place.expectComplaint(/is another image than the plugin file was made for; make it again/);
});

it('the native file has the same bytes at every mount, GUIDs and all, also when the plugin file was moved', async () => {
  const place = placeForTest();
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  const hashes: string[] = [];
  for (let mounts = 0; mounts < 2; mounts++) {
    await place.mount();
    for (const name of ['vm.vhdx', 'thin.vhdx'])
      hashes.push((await runOk('sha256sum', [place.under(name)])).slice(0, 64));
    await place.unmount();
  }
  expect(hashes.slice(2)).toEqual(hashes.slice(0, 2));

  const moved = placeForTest();
  for (const name of ['vm.spf', 'vm.spi', 'vm.vhdx']) fs.copyFileSync(place.behind(name), moved.behind(name));
  fs.renameSync(moved.behind('vm.vhdx'), moved.behind('another name'));
  await moved.mount();
  expect((await runOk('sha256sum', [moved.under('another name')])).slice(0, 64)).toBe(hashes[0]);
  const ids = (await run('vhdiinfo', [moved.under('another name')])).stdout;
  expect(ids).toMatch(/Identifier/i);
});

it('a pointer with a byte that no path can have costs an error, not the mount', async () => {
  const place = placeForTest();
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  point(place.behind('nul.vhdx'), 'vm\0.spi', place.behind('vm.vhdx'));
  point(place.behind('long.vhdx'), 'x'.repeat(5000), place.behind('vm.vhdx'));
  point(place.behind('folder.vhdx'), '.', place.behind('vm.vhdx'));
  await place.mount();
  for (const name of ['nul.vhdx', 'long.vhdx', 'folder.vhdx'])
    await expect(readPart(place.under(name), payload, 512), name).rejects.toMatchObject({ code: 'EIO' });
  await expectReads(place, 'vm.vhdx', place.temporary.file('disk.raw'));
});

it('an image replaced by a pipe does not stop the mount', async () => {
  const place = placeForTest();
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  fs.rmSync(place.behind('vm.spi'));
  await runOk('mkfifo', [place.behind('vm.spi')]);
  writePlugin(place.behind('vm.spf'), place.behind('full.vhdx'));
  await place.mount();
  await expect(readPart(place.under('vm.vhdx'), payload, 512)).rejects.toMatchObject({ code: 'EIO' });
  change(place.temporary.file('disk.raw'), 0, Buffer.alloc(1));
  expect((await readPart(place.under('full.vhdx'), payload, 512)).length).toBe(512);
});
