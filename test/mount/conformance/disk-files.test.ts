/**
 * Native disk files from elsewhere, shown as another format with no image made of them: every kind of source as every format. QEMU, which made the
 * sources, says what they hold.
 */
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createPluginFile } from '../../../src/plugin/create.ts';
import { readPluginFile } from '../../../src/plugin/plugin-file.ts';
import { sourceFormatNames } from '../../../src/source/formats.ts';
import { runOk, veneerOk, veneerRefuses } from '../../cli/veneer.ts';
import { change, readPart, writeDisk } from '../guest-disk.ts';
import { covering } from '../../covering.ts';
import { eventually, MountPlace, placeForTest } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';

const sizeBytes = 6 * MiB + 512;

/** As which format QEMU knows what a plugin file of this extension stands for. */
const shown = { vhdx: 'vhdx', qcow2: 'qcow2', vmdk: 'vmdk', vdi: 'vdi', vhd: 'vpc', raw: 'raw' } as const;
const layouts: Readonly<Record<keyof typeof shown, readonly string[]>> = {
  vhdx: ['fixed', 'dynamic'],
  qcow2: ['full', 'compact'],
  vmdk: ['flat', 'sparse'],
  vdi: ['static', 'dynamic'],
  vhd: ['fixed', 'dynamic'],
  raw: ['flat'],
};

/** How each source is made of a raw disk. */
const sources: ReadonlyArray<readonly [file: string, make: (raw: string, file: string) => Promise<unknown>]> = [
  ['s-raw.img', (raw, file) => convert(raw, file, 'raw')],
  ['s.qcow2', (raw, file) => convert(raw, file, 'qcow2')],
  ['compressed.qcow2', (raw, file) => convert(raw, file, 'qcow2', '-c')],
  ['overlay.qcow2', overlay],
  ['s.vhdx', (raw, file) => convert(raw, file, 'vhdx')],
  ['s.vhd', (raw, file) => convert(raw, file, 'vpc', '-o', 'force_size=on')],
  ['s.vdi', (raw, file) => convert(raw, file, 'vdi')],
  ['s.vmdk', (raw, file) => convert(raw, file, 'vmdk')],
  ['flat.vmdk', (raw, file) => convert(raw, file, 'vmdk', '-o', 'subformat=monolithicFlat')],
  ['s.qed', (raw, file) => convert(raw, file, 'qed')],
  ['s.001', split],
];

async function convert(raw: string, file: string, format: string, ...options: readonly string[]): Promise<void> {
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', format, ...options, raw, file]);
}

async function overlay(raw: string, file: string): Promise<void> {
  const base = path.join(path.dirname(file), 'base.qcow2');
  await convert(raw, base, 'qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', path.basename(base), '-F', 'qcow2', file]);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x77 1M 70k', file]);
}

function split(raw: string, file: string): Promise<void> {
  const bytes = fs.readFileSync(raw);
  const partBytes = 2 * MiB;
  for (let index = 0; index * partBytes < bytes.length; index++) {
    const part = file.replace(/001$/, String(index + 1).padStart(3, '0'));
    fs.writeFileSync(part, bytes.subarray(index * partBytes, (index + 1) * partBytes));
  }
  return Promise.resolve();
}

/** What QEMU reads of a source. */
async function held(place: MountPlace, name: string): Promise<string> {
  const out = place.temporary.file(`held-${name}`);
  if (name.endsWith('.001')) {
    const parts = fs.readdirSync(place.folder).filter((one) => /^s\.\d{3}$/.test(one));
    fs.writeFileSync(out, Buffer.concat(parts.sort().map((part) => fs.readFileSync(place.behind(part)))));
  } else await runOk('qemu-img', ['convert', '-O', 'raw', place.behind(name), out]);
  return out;
}

async function makeSource(place: MountPlace, name: string): Promise<void> {
  const raw = place.temporary.file('disk.raw');
  if (!fs.existsSync(raw)) writeDisk(raw, 'a disk file', sizeBytes);
  const make = sources.find(([file]) => file === name)?.[1];
  await make?.(raw, place.behind(name));
}

async function expectSame(format: string, file: string, raw: string): Promise<void> {
  expect(await runOk('qemu-img', ['compare', '-f', format, '-F', 'raw', file, raw]), file).toContain('identical');
}

it('every format that is read is among the sources', () => {
  const extensions = sources.map(([file]) => path.extname(file).slice(1));
  const named = extensions.map((extension) => ({ img: 'raw', '001': 'split' })[extension] ?? extension);
  expect([...new Set(named)].sort()).toEqual([...sourceFormatNames].sort());
});

/** Every source as every format in every layout: a soak has all, `npm test` each source, and each layout of each format. */
const pairs = covering(
  sources.flatMap(([source]) =>
    Object.entries(layouts).flatMap(([format, ofFormat]) => ofFormat.map((layout) => ({ source, format, layout }))),
  ),
  ({ source, format, layout }) => [source, `${format} ${layout}`],
);

describeAboveTransports('a native disk file, shown as another,', (transport) => {
  let place: MountPlace;
  const fileOf = ({ source, format, layout }: (typeof pairs)[number]): string => `${source}-as-${layout}.${format}`;

  beforeAll(async () => {
    place = new MountPlace();
    for (const source of new Set(pairs.map((pair) => pair.source))) await makeSource(place, source);
    for (const pair of pairs)
      createPluginFile(place.behind(pair.source), place.behind(fileOf(pair)), { layout: pair.layout });
    await place.mount(...transport.options);
    return () => place.end();
  });

  it.each(sources)('reads as QEMU reads it: %s', { timeout: 240_000 }, async (name) => {
    const raw = await held(place, name);
    const ofSource = pairs.filter(({ source }) => source === name);
    expect(ofSource).not.toEqual([]);
    for (const pair of ofSource)
      await expectSame(shown[pair.format as keyof typeof shown], place.under(fileOf(pair)), raw);
    expect(place.complaints()).toEqual([]);
  });
});

describeAboveTransports('a native disk file that is shown as another', (transport) => {
  it('what a guest writes is kept, is there after a remount, and fills into a disk file of its own', async () => {
    const place = placeForTest();
    await makeSource(place, 's.qcow2');
    const before = fs.readFileSync(place.behind('s.qcow2'));
    const raw = await held(place, 's.qcow2');
    const said = await veneerOk('plugin', 'create', place.behind('s.qcow2'), place.behind('vm.vhdx'));
    expect(said).toMatch(/vm\.vhdx: stands for a vhdx file \(fixed\) of a disk of .*, from s\.qcow2/);
    const writes = ['write -P 0x5a 2M 1M', 'write -P 0x33 1234432 7680', 'flush'].flatMap((write) => ['-c', write]);
    await place.mount(...transport.options);
    for (const [format, file] of [
      ['vhdx', place.under('vm.vhdx')],
      ['raw', raw],
    ] as const)
      await runOk('qemu-io', ['-f', format, ...writes, file]);
    await expectSame('vhdx', place.under('vm.vhdx'), raw);
    await place.unmount();
    await place.mount(...transport.options);
    await expectSame('vhdx', place.under('vm.vhdx'), raw);
    await veneerOk('fill', 'start', place.under('vm.vhdx'));
    await eventually(
      async () => expect(await veneerOk('fill', 'status', place.under('vm.vhdx'))).toContain('complete'),
      30_000,
    );
    fs.renameSync(place.behind('s.qcow2'), place.temporary.file('away'));
    await expectSame('vhdx', place.under('vm.vhdx'), raw);
    await veneerOk('finalize', place.under('vm.vhdx'));
    await place.unmount();
    await expectSame('vhdx', place.behind('vm.vhdx'), raw);
    expect(fs.readFileSync(place.temporary.file('away')).equals(before)).toBe(true);
  });

  const changes: ReadonlyArray<readonly [what: string, source: string, alter: (place: MountPlace) => void]> = [
    [
      'written to',
      's.qcow2',
      (place) => change(place.behind('s.qcow2'), 200 * KiB, Buffer.from('written by somebody')),
    ],
    [
      'replaced by one of the same size and time',
      's-raw.img',
      (place) => {
        const file = place.behind('s-raw.img');
        const { size, atime, mtime } = fs.statSync(file);
        fs.writeFileSync(`${file}.new`, Buffer.alloc(size, 3));
        fs.utimesSync(`${file}.new`, atime, mtime);
        fs.renameSync(`${file}.new`, file);
      },
    ],
    ['made longer', 's-raw.img', (place) => fs.appendFileSync(place.behind('s-raw.img'), Buffer.alloc(512))],
    [
      'given another parent',
      'overlay.qcow2',
      (place) => change(place.behind('base.qcow2'), 200 * KiB, Buffer.from('written by somebody')),
    ],
    ['given a further part', 's.001', (place) => fs.copyFileSync(place.behind('s.004'), place.behind('s.005'))],
    [
      'given another extent',
      'flat.vmdk',
      (place) => change(place.behind('flat-flat.vmdk'), MiB, Buffer.from('written by somebody')),
    ],
  ];

  it('a source that was changed is refused in one line, also for what was written over it', async () => {
    const places = changes.map(([what, name, alter]) => ({ what, name, alter, at: what.replaceAll(' ', '-') }));
    const place = placeForTest();
    /** The same place, but for the folder below that a source has to itself. */
    const below = (at: string): MountPlace =>
      Object.assign(Object.create(place) as MountPlace, {
        behind: (name: string) => place.behind(path.join(at, name)),
        under: (name: string) => place.under(path.join(at, name)),
      });
    for (const { name, at } of places) {
      fs.mkdirSync(place.behind(at));
      await makeSource(below(at), name);
      for (const made of ['plain.raw', 'kept.raw']) createPluginFile(below(at).behind(name), below(at).behind(made));
    }
    await place.mount(...transport.options);
    for (const { at } of places)
      await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 1M 64k', below(at).under('kept.raw')]);
    await place.unmount();
    for (const { alter, at } of places) alter(below(at));
    await place.mount(...transport.options);
    for (const { what, name, at } of places) {
      const its = below(at);
      for (const made of ['plain.raw', 'kept.raw']) {
        await expect(readPart(its.under(made), 3 * MiB, 512), `${what}: ${made}`).rejects.toMatchObject({
          code: 'EIO',
        });
        await place.expectComplaint(
          new RegExp(`^${at}/${made}: read of .*: .*(changed or replaced since|was cut off|part)`, 'm'),
        );
      }
      // What the guest wrote itself is its own.
      expect(await readPart(its.under('kept.raw'), MiB, 512)).toEqual(Buffer.alloc(512, 0x5a));
      expect(await veneerRefuses('plugin', 'create', '--force', its.behind(name), its.behind('kept.raw'))).toMatch(
        /kept\.raw: has been written to under a mount|s\.001: .*the first part/,
      );
    }
  });

  it('a source that is written to while its disk is shown is refused from then on, until it is put back', async () => {
    const place = placeForTest();
    await makeSource(place, 's-raw.img');
    const source = place.behind('s-raw.img');
    createPluginFile(source, place.behind('vm.vhdx'));
    await place.mount(...transport.options);
    const file = place.under('vm.vhdx');
    expect(await readPart(file, 5 * MiB, 512)).toHaveLength(512);
    change(source, 0, Buffer.alloc(512, 1));
    const direct = fs.constants.O_RDONLY | fs.constants.O_DIRECT;
    await expect(readPart(file, 6 * MiB, 4096, direct)).rejects.toMatchObject({ code: 'EIO' });
    await place.expectComplaint(/vm\.vhdx: read of .*s-raw\.img: was changed or replaced since/);
  });

  it('is followed only where the mount allows, and never to a pipe', async () => {
    const place = placeForTest();
    const outside = place.temporary.file('outside');
    fs.mkdirSync(outside);
    await makeSource(place, 's-raw.img');
    fs.renameSync(place.behind('s-raw.img'), path.join(outside, 's-raw.img'));
    const said = createPluginFile(path.join(outside, 's-raw.img'), place.behind('vm.raw'));
    expect(said.source.path).toBe('../outside/s-raw.img');
    await place.mount(...transport.options);
    await expect(fs.promises.open(place.under('vm.raw'))).rejects.toMatchObject({ code: 'EACCES' });
    await place.expectComplaint(/vm\.raw.*outside the mounted folder; mount with --allow-path/);
    await place.unmount();
    await place.mount(...transport.options, '--allow-path', outside);
    await expectSame('raw', place.under('vm.raw'), path.join(outside, 's-raw.img'));
    await place.unmount();
    fs.rmSync(path.join(outside, 's-raw.img'));
    await runOk('mkfifo', [path.join(outside, 's-raw.img')]);
    await place.mount(...transport.options, '--allow-path', outside);
    await expect(readPart(place.under('vm.raw'), 0, 512)).rejects.toMatchObject({
      code: expect.stringMatching(/E(IO|ACCES)/) as string,
    });
    await place.expectComplaint(/s-raw\.img: is a named pipe, where a file is expected/);
  });
});

it('plugin show explains it, and plugin create asks what does not say itself', async () => {
  const place = placeForTest();
  await makeSource(place, 's.qcow2');
  fs.renameSync(place.behind('s.qcow2'), place.behind('odd.img'));
  const [source, plugin] = [place.behind('odd.img'), place.behind('vm.vmdk')];
  expect(await veneerRefuses('plugin', 'create', source, plugin)).toMatch(
    /--source-format qcow2;.*--source-format raw/,
  );
  await veneerOk('plugin', 'create', '--source-format', 'qcow2', source, plugin);
  expect(readPluginFile(plugin).source).toMatchObject({ kind: 'file', path: 'odd.img', format: 'qcow2' });
  expect(await veneerOk('plugin', 'show', plugin)).toMatch(/^disk file odd\.img, read as qcow2; .* changed 20\d\d-/m);
  expect(JSON.parse(await veneerOk('plugin', 'show', '--json', plugin))).toMatchObject({
    version: 2,
    source: { path: 'odd.img' },
  });
  const boots = ['--boot', 'bios'];
  expect(
    await veneerRefuses(
      'plugin',
      'create',
      ...boots,
      place.behind('odd.img'),
      place.behind('b.raw'),
      '--source-format',
      'qcow2',
    ),
  ).toMatch(/is a disk file, and a disk is made around images of volumes/);
  expect(await veneerRefuses('plugin', 'create', plugin, place.behind('again.raw'))).toMatch(/a plugin file/);
  fs.writeFileSync(place.behind('broken.spf'), Buffer.alloc(64 * KiB, 7));
  expect(await veneerRefuses('plugin', 'create', place.behind('broken.spf'), place.behind('c.raw'))).toMatch(
    /broken\.spf/,
  );
  expect(fs.existsSync(place.behind('c.raw'))).toBe(false);
});
