/** Which writes are whose: a disk is a plugin file with its name in its folder, and nothing mixes two of them or loses one. */
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { formatNames } from '../../../src/native/formats.ts';
import { createPluginFile } from '../../../src/plugin/create.ts';
import { renameWith } from '../../../src/base/system-calls.ts';
import { run, runOk, veneerRefuses } from '../../cli/veneer.ts';
import { change, readPart, writeDisk } from '../guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports, describeTransports } from '../transports.ts';

const { link, open, readdir, rename, rm, stat, unlink } = fs.promises;
const sizeBytes = 6 * MiB + 512;
const at = 2 * MiB + 5;

/** Disks by name: what a guest wrote to each, in one place. */
async function write(file: string, text: string): Promise<void> {
  const handle = await open(file, 'r+');
  try {
    await handle.write(Buffer.from(text.padEnd(16)), 0, 16, at);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function textOf(file: string): Promise<string> {
  return (await readPart(file, at, 16)).toString('latin1').trim();
}

/** Everything in a folder, for what must not change. */
function snapshot(folder: string): Record<string, string> {
  return Object.fromEntries(
    fs
      .readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => [
        path.join(parentPath, name),
        fs.readFileSync(path.join(parentPath, name)).toString('base64'),
      ]),
  );
}

async function placeWithImage(...names: string[]): Promise<MountPlace> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  writeDisk(raw, 'identity', sizeBytes);
  change(raw, at, Buffer.from('image'.padEnd(16)));
  await createImage(raw, place.behind('vm.spf'));
  for (const name of names) plugin(place, name);
  return place;
}

function plugin(place: MountPlace, name: string, force = false): void {
  fs.mkdirSync(path.dirname(place.behind(name)), { recursive: true });
  createPluginFile(place.behind('vm.spf'), place.behind(name), { force, format: formatOf(name) });
}

function formatOf(name: string): (typeof formatNames)[number] {
  return formatNames.find((format) => name.endsWith(`.${format}`)) ?? 'raw';
}

describeAboveTransports('a copied plugin file', (transport) => {
  it.each(['intercept', 'discard'])('is a disk of its own, of each format, in sub folders too (%s)', async (mode) => {
    const names = formatNames.flatMap((format) => [`vm.${format}`, `below/vm.${format}`]);
    const place = await placeWithImage(...names);
    const isFlat = (name: string): boolean => name.endsWith('.vmdk');
    const copies = [...names, ...names.map((name) => name.replace('vm.', 'copy.'))];
    for (const name of names) fs.copyFileSync(place.behind(name), place.behind(name.replace('vm.', 'copy.')));
    const shown = (name: string): string => place.under(isFlat(name) ? name.replace('.vmdk', '-flat.vmdk') : name);
    await place.mount(...transport.options, '--write', mode);
    for (const name of copies)
      expect(await textOf(shown(name))).toBe(await textOf(shown(name.replace('copy.', 'vm.'))));
    for (const name of copies) await write(shown(name), name);
    for (const name of copies) expect(await textOf(shown(name))).toBe(name);
    await place.unmount();
    await place.mount(...transport.options);
    for (const name of copies) {
      if (mode === 'intercept') expect(await textOf(shown(name))).toBe(name);
      else expect(await textOf(shown(name))).not.toBe(name);
    }
  });

  it('is filled and finalized apart from the other', async () => {
    const place = await placeWithImage('a.raw');
    fs.copyFileSync(place.behind('a.raw'), place.behind('b.raw'));
    await place.mount(...transport.options, '--fill');
    await write(place.under('a.raw'), 'of a');
    await write(place.under('b.raw'), 'of b');
    for (const name of ['a.raw', 'b.raw']) {
      for (let state = ''; state !== 'complete';) {
        const { fills } = await place.status();
        state = fills?.find((fill) => fill.name === name)?.state ?? '';
      }
    }
    await runOk(process.execPath, [
      path.join(import.meta.dirname, '../../../bin/veneer.mjs'),
      'finalize',
      place.under('a.raw'),
    ]);
    expect(await textOf(place.behind('a.raw'))).toBe('of a');
    expect(await textOf(place.under('b.raw'))).toBe('of b');
    await write(place.under('b.raw'), 'of b later');
    expect(await textOf(place.under('a.raw'))).toBe('of a');
  });
});

describeTransports('names of plugin files', (transport) => {
  let place: MountPlace;

  beforeAll(async () => {
    place = await placeWithImageForSuite();
    await place.mount(...transport.options);
    return () => place.end();
  });

  it('one with several names is shown, and not opened', async () => {
    plugin(place, 'linked.raw');
    fs.linkSync(place.behind('linked.raw'), place.behind('other.raw'));
    for (const name of ['linked.raw', 'other.raw']) {
      expect((await stat(place.under(name))).size).toBe(sizeBytes);
      await expect(open(place.under(name))).rejects.toMatchObject({ code: 'EMLINK' });
      await expect(fs.promises.truncate(place.under(name), 0)).rejects.toMatchObject({ code: 'EMLINK' });
    }
    await place.expectComplaint(/linked\.raw: its plugin file has several names \(hard links\).*with cp/);
    await unlink(place.under('other.raw'));
    expect(await textOf(place.under('linked.raw'))).toBe('image');
  });

  it('one is given no second name', async () => {
    plugin(place, 'single.raw');
    await expect(link(place.under('single.raw'), place.under('second.raw'))).rejects.toThrow();
    expect(fs.existsSync(place.behind('second.raw'))).toBe(false);
  });

  it('one with writes keeps its name, whichever side of a rename it is on', async () => {
    for (const name of ['kept.raw', 'free.raw']) plugin(place, name);
    fs.writeFileSync(place.behind('plain'), 'plain');
    await write(place.under('kept.raw'), 'kept');
    const before = snapshot(place.folder);
    const moves = [
      ['kept.raw', 'new.raw'],
      ['free.raw', 'kept.raw'],
      ['plain', 'kept.raw'],
      ['plain', 'free.raw'],
    ] as const;
    for (const [from, to] of moves)
      await expect(rename(place.under(from), place.under(to)), `${from} to ${to}`).rejects.toMatchObject({
        code: 'EROFS',
      });
    if (transport.name === 'kernel') {
      for (const [from, to] of [
        ['kept.raw', 'free.raw'],
        ['free.raw', 'kept.raw'],
        ['plain', 'free.raw'],
        ['free.raw', 'plain'],
        ['kept.raw', 'plain'],
      ] as const)
        expect(() => renameWith(place.under(from), place.under(to), 2), `${from} and ${to}`).toThrow('EROFS');
    }
    expect(snapshot(place.folder)).toEqual(before);
    expect(await textOf(place.under('kept.raw'))).toBe('kept');
    await rename(place.under('free.raw'), place.under('renamed.raw'));
    await write(place.under('renamed.raw'), 'renamed');
    expect(await textOf(place.under('renamed.raw'))).toBe('renamed');
  });

  it('sed -i of a descriptor is refused, and the disk is what it was', async () => {
    plugin(place, 'vm.vmdk');
    const before = fs.readFileSync(place.behind('vm.vmdk'));
    const { status } = await run('sed', ['-i', 's/CID=/CID=1/', place.under('vm.vmdk')]);
    expect(status).not.toBe(0);
    expect(fs.readFileSync(place.behind('vm.vmdk'))).toEqual(before);
    expect((await stat(place.under('vm-flat.vmdk'))).size).toBe(sizeBytes);
  });

  it('an open one that is renamed is written where it is then; one that is removed or moved away is not', async () => {
    for (const name of ['open.raw', 'gone.raw', 'out.raw']) plugin(place, name);
    const handles = await Promise.all(['open.raw', 'gone.raw', 'out.raw'].map((name) => open(place.under(name), 'r+')));
    const [moved, gone, out] = handles;
    try {
      await rename(place.under('open.raw'), place.under('open2.raw'));
      await moved?.write(Buffer.from('moved'.padEnd(16)), 0, 16, at);
      expect(await textOf(place.under('open2.raw'))).toBe('moved');
      await unlink(place.under('gone.raw'));
      // libfuse 2 keeps a file that is open under a name of its own, until it is closed.
      if (transport.name === 'kernel')
        await expect(gone?.write(Buffer.alloc(16), 0, 16, at)).rejects.toMatchObject({ code: 'EIO' });
      fs.renameSync(place.behind('out.raw'), place.temporary.file('out.raw'));
      await expect(out?.write(Buffer.alloc(16), 0, 16, at)).rejects.toMatchObject({ code: 'EIO' });
      await place.expectComplaint(/its plugin file was removed, replaced or moved away/);
    } finally {
      await Promise.all(handles.map((handle) => handle.close()));
    }
    await eventually(() => expect(fs.readdirSync(place.folder).join()).not.toContain('.fuse_hidden'));
    const names = fs.readdirSync(place.folder).filter((name) => /^(open|gone|out)/.test(name));
    expect(names.sort()).toEqual(['open2.raw', 'open2.raw.replacement', 'open2.raw.replacement-map']);
    expect(fs.readdirSync(place.temporary.path).filter((name) => name.startsWith('out.raw.'))).toEqual([]);
  });

  it('with a folder go its disks, those that are open too', async () => {
    for (const name of ['moving/written.raw', 'moving/new.raw']) plugin(place, name);
    await write(place.under('moving/written.raw'), 'before');
    const written = await open(place.under('moving/written.raw'), 'r+');
    const fresh = await open(place.under('moving/new.raw'), 'r+');
    try {
      await rename(place.under('moving'), place.under('moved'));
      // Another takes its place, with disks of the same names.
      for (const name of ['moving/written.raw', 'moving/new.raw']) plugin(place, name);
      await written.write(Buffer.from('after'.padEnd(16)), 0, 16, at);
      await fresh.write(Buffer.from('fresh'.padEnd(16)), 0, 16, at);
      expect(await textOf(place.under('moved/written.raw'))).toBe('after');
      expect(await textOf(place.under('moved/new.raw'))).toBe('fresh');
      for (const name of ['moving/written.raw', 'moving/new.raw'])
        expect(await textOf(place.under(name))).toBe('image');
      // A part that was never read: the image is found from where the plugin file is now.
      const handle = await written.read(Buffer.alloc(512), 0, 512, 1000);
      expect(handle.bytesRead).toBe(512);
    } finally {
      await written.close();
      await fresh.close();
    }
    expect(fs.readdirSync(place.behind('moving')).sort()).toEqual(['new.raw', 'written.raw']);
  });

  it('the mounted folder itself may be moved behind the mount: disks are opened, and first written, where it is then', async () => {
    plugin(place, 'a.raw');
    plugin(place, 'b.raw');
    await write(place.under('a.raw'), 'before');
    const handle = await open(place.under('b.raw'), 'r+');
    const elsewhere = place.temporary.file('elsewhere');
    fs.renameSync(place.folder, elsewhere);
    try {
      await handle.write(Buffer.from('first'.padEnd(16)), 0, 16, at);
      expect(await textOf(place.under('a.raw'))).toBe('before');
      expect(await textOf(place.under('b.raw'))).toBe('first');
      expect(fs.existsSync(`${elsewhere}/b.raw.replacement`)).toBe(true);
    } finally {
      await handle.close();
      fs.renameSync(elsewhere, place.folder);
    }
    expect(await textOf(place.under('b.raw'))).toBe('first');
  });

  it('a folder that is moved behind the mount before the first write gets it all the same', async () => {
    plugin(place, 'behind/vm.raw');
    const handle = await open(place.under('behind/vm.raw'), 'r+');
    try {
      fs.renameSync(place.behind('behind'), place.behind('ahead'));
      plugin(place, 'behind/vm.raw');
      await handle.write(Buffer.from('ahead'.padEnd(16)), 0, 16, at);
    } finally {
      await handle.close();
    }
    expect(fs.readdirSync(place.behind('behind'))).toEqual(['vm.raw']);
    expect(await textOf(place.under('ahead/vm.raw'))).toBe('ahead');
    expect(await textOf(place.under('behind/vm.raw'))).toBe('image');
  });

  it('one that is renamed behind without its writes is refused until these are renamed, too; a copy of it is another disk', async () => {
    const disks = [
      { name: 'old.raw', data: 'old.raw' },
      { name: 'old.vmdk', data: 'old-flat.vmdk' },
    ];
    for (const { name, data } of disks) {
      plugin(place, name);
      await write(place.under(data), 'kept');
      fs.copyFileSync(place.behind(name), place.behind(`copy-${name}`));
      expect(await textOf(place.under(`copy-${data}`))).toBe('image');
    }
    await place.unmount();
    for (const { name } of disks) fs.renameSync(place.behind(name), place.behind(name.replace('old', 'new')));
    await place.mount(...transport.options);
    for (const { data } of disks) {
      const now = data.replace('old', 'new');
      const from = place.complaints().length;
      await expect(open(place.under(now))).rejects.toMatchObject({ code: 'EIO' });
      const complaint = `was renamed, and what was written to it is still called ${data}\\.replacement and`;
      await place.expectComplaint(new RegExp(complaint), from);
      for (const suffix of ['.replacement', '.replacement-map'])
        fs.renameSync(place.behind(data + suffix), place.behind(now + suffix));
      expect(await textOf(place.under(now))).toBe('kept');
    }
  });

  it('one that takes the place of another behind the mount neither reads nor loses what was written to that', async () => {
    plugin(place, 'replaced.raw');
    await write(place.under('replaced.raw'), 'first');
    expect(
      await veneerRefuses('plugin', 'create', '--force', place.behind('vm.spf'), place.behind('replaced.raw')),
    ).toMatch(/has been written to under a mount; .*move replaced\.raw\.replacement and .* away/);
    const first = fs.readFileSync(place.behind('replaced.raw'));
    plugin(place, 'unwritten.raw');
    fs.renameSync(place.behind('unwritten.raw'), place.behind('replaced.raw'));
    const before = snapshot(place.folder);
    await expect(open(place.under('replaced.raw'))).rejects.toMatchObject({ code: 'EIO' });
    await place.expectComplaint(/replaced\.raw\.replacement-map.*holds writes of another plugin file; move it/);
    expect(snapshot(place.folder)).toEqual(before);
    // With the same id it is the same disk.
    fs.writeFileSync(place.behind('edited'), first);
    fs.renameSync(place.behind('edited'), place.behind('replaced.raw'));
    expect(await textOf(place.under('replaced.raw'))).toBe('first');
    await write(place.under('replaced.raw'), 'second');
    expect(await textOf(place.under('replaced.raw'))).toBe('second');
  });

  it('one goes with its own writes, and with no others', async () => {
    plugin(place, 'own.raw');
    await write(place.under('own.raw'), 'own');
    plugin(place, 'spare.raw');
    fs.renameSync(place.behind('spare.raw'), place.behind('own.raw'));
    await unlink(place.under('own.raw'));
    expect(
      fs
        .readdirSync(place.folder)
        .filter((name) => name.startsWith('own.raw'))
        .sort(),
    ).toEqual(['own.raw.replacement', 'own.raw.replacement-map']);
    // Nobody's now, and shown: whoever sees them can put them away.
    expect((await readdir(place.mountpoint)).filter((name) => name.startsWith('own.raw'))).toHaveLength(2);
    await rm(place.under('own.raw.replacement'));
    await rm(place.under('own.raw.replacement-map'));
  });

  it('files that are only called like parts of a disk are files like any other', async () => {
    const files = {
      'notes.replacement': 'notes',
      'x.replacement-map': 'no map',
      'y.replacement-map.veneer-part': 'unfinished',
    };
    for (const [name, text] of Object.entries(files)) {
      await fs.promises.writeFile(place.under(name), text);
      expect(await readdir(place.mountpoint)).toContain(name);
      await fs.promises.appendFile(place.under(name), ' more');
      expect(fs.readFileSync(place.behind(name), 'utf8')).toBe(`${text} more`);
      await rename(place.under(name), place.under(`${name}.replacement`));
      await unlink(place.under(`${name}.replacement`));
    }
    plugin(place, 'disk.raw');
    for (const name of ['disk.raw.replacement', 'disk.raw.replacement-map', 'disk.raw.discard.replacement'])
      await expect(fs.promises.writeFile(place.under(name), 'x')).rejects.toThrow(/ENOENT|EACCES/);
    fs.writeFileSync(place.behind('disk.raw.replacement'), "a user's own, and no leftover");
    await expect(write(place.under('disk.raw'), 'x')).rejects.toMatchObject({ code: 'EIO' });
    expect(fs.readFileSync(place.behind('disk.raw.replacement'), 'utf8')).toBe("a user's own, and no leftover");
  });

  it('every name that a plugin file may have can be written to and finalized', async () => {
    for (const length of [230, 233, 235, 247, 255]) {
      const name = `${'n'.repeat(length - 4)}.raw`;
      plugin(place, 'short.raw');
      fs.renameSync(place.behind('short.raw'), place.behind(name));
      await write(place.under(name), String(length));
      expect(await textOf(place.under(name))).toBe(String(length));
      expect((await readdir(place.mountpoint)).filter((other) => other.startsWith('nnnn'))).toEqual([name]);
      await expect(rename(place.under(name), place.under('away.raw'))).rejects.toMatchObject({ code: 'EROFS' });
      await rm(place.under(name));
      expect(fs.readdirSync(place.folder).filter((other) => other.startsWith('nnnn'))).toEqual([]);
    }
  });
});

/** As placeWithImage, for a suite, which ends it. */
async function placeWithImageForSuite(): Promise<MountPlace> {
  const { MountPlace: Place } = await import('../mounted.ts');
  const place = new Place();
  const raw = place.temporary.file('disk.raw');
  writeDisk(raw, 'identity', sizeBytes);
  change(raw, at, Buffer.from('image'.padEnd(16)));
  await createImage(raw, place.behind('vm.spf'));
  return place;
}
