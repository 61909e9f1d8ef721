/**
 * What commands print with --json, on real input, against the JSON Schemas that are written down of it. The judge is a validator that knows
 * nothing of how they were made; a field that a schema does not name is a fault.
 */
import Ajv from 'ajv';
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { formatNames } from '../../src/native/formats.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { schemaFolder, schemaPath, schemaTexts, type JsonCommand } from '../../scripts/json-schemas.ts';
import { change, readFrom, writeDisk } from '../mount/guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mount/mounted.ts';
import { Seeded } from '../seeded.ts';
import { veneer, veneerOk } from './veneer.ts';
import { smallLinux } from '../plugin/small-linux.ts';

const sizeBytes = 6 * MiB;

/** What a command printed, which fits its schema. */
async function told(command: JsonCommand, ...args: readonly string[]): Promise<unknown> {
  return fitting(command, await veneerOk(...command.split(' '), '--json', ...args));
}

function fitting(command: JsonCommand, text: string): unknown {
  const judge = new Ajv({ allErrors: true, unknownFormats: ['base64'] });
  const value: unknown = JSON.parse(text);
  const schema = JSON.parse(fs.readFileSync(schemaPath(command), 'utf8')) as object;
  expect(judge.validate(schema, value), `${judge.errorsText()}\n${text}`).toBe(true);
  return value;
}

/** A full image `vm.spf` and an incremental `vm.spi`. */
async function imagesIn(place: MountPlace): Promise<void> {
  const raw = place.temporary.file('disk.raw');
  writeDisk(raw, 'told to programs', sizeBytes);
  await createImage(raw, place.behind('vm.spf'));
  change(raw, MiB, new Seeded('later').bytes(64 * KiB));
  await createImage(raw, place.behind('vm.spi'), { parent: place.behind('vm.spf') });
}

async function imageInfo(): Promise<void> {
  const place = placeForTest();
  await imagesIn(place);
  expect(await told('image info', place.behind('vm.spf'))).toMatchObject({ images: [{ kind: 'full' }] });
  expect(await told('image info', place.behind('vm.spi'))).toMatchObject({
    diskBytes: sizeBytes,
    images: [{ kind: 'incremental', file: 'vm.spi', parent: { name: 'vm.spf' } }, { kind: 'full' }],
  });
}

async function chainList(): Promise<void> {
  const place = placeForTest();
  await imagesIn(place);
  await veneerOk('image', 'consolidate', place.behind('vm.spi'), place.behind('one.spf'));
  const image = fs.readFileSync(place.behind('vm.spi'));
  fs.writeFileSync(place.behind('damaged.spi'), image.subarray(0, image.length - 1));
  const { status, stdout } = await veneer('chain', 'list', '--json', place.folder);
  expect(status).toBe(1);
  expect(fitting('chain list', stdout)).toMatchObject({
    images: [{ description: { kind: 'consolidated' }, sources: [{}, {}] }, { path: place.behind('vm.spf') }, {}],
    damaged: [{ path: place.behind('damaged.spi') }],
  });
}

async function keyList(): Promise<void> {
  const place = placeForTest();
  const { temporary } = place;
  const key = temporary.write('key', new Seeded('a key').bytes(32));
  fs.chmodSync(key, 0o600);
  writeDisk(temporary.file('disk.raw'), 'sealed', sizeBytes);
  const [raw, image] = [temporary.file('disk.raw'), place.behind('vm.spf')];
  await veneerOk('image', 'create', '--encrypt', '--key-file', key, raw, image);
  expect(await told('key list', image)).toMatchObject({
    slots: [{ slot: 0, kind: 'key file' }],
    images: 1,
    behind: [],
  });
}

async function pluginShow(): Promise<void> {
  const place = placeForTest();
  await imagesIn(place);
  for (const format of formatNames) {
    const plugin = place.behind(`${format}.disk`);
    createPluginFile(place.behind('vm.spf'), plugin, { format, write: 'discard' });
    expect(await told('plugin show', plugin)).toMatchObject({ native: { format }, write: 'discard' });
  }
}

async function fillStatusAndVerify(): Promise<void> {
  const place = placeForTest();
  await imagesIn(place);
  const plugin = place.behind('vm.vmdk');
  createPluginFile(place.behind('vm.spi'), plugin);
  expect(await told('fill status', plugin)).toEqual([]);
  await veneerOk('fill', 'start', plugin);
  expect(await told('fill status', plugin)).toMatchObject([{ state: 'complete' }, { state: 'complete' }]);
  expect(await told('fill verify', plugin)).toMatchObject([{ name: 'vm.vmdk' }, { name: 'vm-flat.vmdk' }]);
}

async function status(): Promise<void> {
  const place = placeForTest();
  await imagesIn(place);
  for (const name of ['vm.raw', 'other.raw']) createPluginFile(place.behind('vm.spi'), place.behind(name));
  fs.copyFileSync(place.behind('vm.raw'), place.behind('lost.raw'));
  const lost = fs.readFileSync(place.behind('lost.raw'), 'utf8').replace(/"imageId": "[^-]*/, '"imageId": "00000000');
  fs.writeFileSync(place.behind('lost.raw'), lost);
  await place.mount();
  for (const name of ['vm.raw', 'lost.raw']) {
    const handle = await fs.promises.open(place.under(name));
    await readFrom(handle, 0, 4096).catch(() => undefined);
    await handle.close();
  }
  await veneerOk('fill', 'start', place.under('other.raw'));
  await eventually(async () => {
    expect(await told('status', place.mountpoint)).toMatchObject([
      { fills: [{ name: 'other.raw', state: 'complete' }] },
    ]);
  });
  const { files } = await place.status();
  expect(files.find(({ name }) => name === 'vm.raw')?.latencyMicroseconds).toBeDefined();
  expect(files.find(({ name }) => name === 'lost.raw')?.lastError).toBeDefined();
}

async function reconfigure(): Promise<void> {
  const { plugin } = await smallLinux();
  const plan = { target: 'qemu-virtio', guest: { os: 'linux' } };
  const asked = ['--target', 'qemu-virtio'];
  expect(await told('reconfigure', ...asked, '--dry-run', plugin)).toMatchObject(plan);
  expect(await told('reconfigure', ...asked, plugin)).toMatchObject(plan);
  expect(await told('plugin show', plugin)).toMatchObject({ patchSets: [{ target: 'qemu-virtio' }] });
}

async function files(): Promise<void> {
  const { place } = await smallLinux();
  const image = place.behind('vm.spf');
  expect(await told('files volumes', image)).toMatchObject({ volumes: [{ fileSystem: 'ext4', mountpoints: ['/'] }] });
  expect(await told('files ls', image, '/etc')).toMatchObject({
    files: expect.arrayContaining([expect.objectContaining({ path: '/etc/fstab', type: 'file' })]) as object,
  });
  expect(await told('files stat', image, '/', '/etc/fstab')).toMatchObject({
    files: [{ type: 'folder' }, { sizeBytes: 30, permissions: '0644' }],
  });
  expect(await told('files find', image, '--name', 'fst?b')).toMatchObject({ files: [{ path: '/etc/fstab' }] });
}

const judged: Readonly<Record<JsonCommand, () => Promise<void>>> = {
  'image info': imageInfo,
  'chain list': chainList,
  'key list': keyList,
  'plugin show': pluginShow,
  'files find': files,
  'files ls': files,
  'files stat': files,
  'files volumes': files,
  'fill status': fillStatusAndVerify,
  'fill verify': fillStatusAndVerify,
  status,
  reconfigure,
};

it.each([...new Set(Object.values(judged))].map((judge) => [judge.name, judge] as const))(
  'what %s prints fits its schema',
  { timeout: 180_000 },
  async (_name, judge) => {
    await judge();
  },
);

it('the schemas that are written down are those of this version, and no others', async () => {
  const texts = await schemaTexts();
  const written = fs.readdirSync(schemaFolder).map((name) => `${schemaFolder}/${name}`);
  expect(written.sort()).toEqual([...texts.keys()].sort());
  for (const [file, text] of texts)
    expect(fs.readFileSync(file, 'utf8'), `${file}; write it anew with: npm run schemas`).toBe(text);
});
