/** What is a plugin file is decided by content: any name will do, damage is told of, and a real disk file is left as it is. */
import fs from 'node:fs';
import { beforeAll, expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { maxPluginFileBytes } from '../../../src/plugin/plugin-file.ts';
import { run, runOk, veneerOk } from '../../cli/veneer.ts';
import { mapOf, writeGuest, writePlugin } from '../guest-disk.ts';
import { eventually, MountPlace } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';

const { open, readFile, stat, unlink } = fs.promises;

describeAboveTransports('plugin files', (transport) => {
  let place: MountPlace;
  let raw: string;

  beforeAll(async () => {
    place = new MountPlace();
    raw = place.temporary.file('disk.raw');
    await writeGuest(place.folder, raw);
    await place.mount(...transport.options);
    return () => place.end();
  });

  async function expectGuest(name: string): Promise<void> {
    const said = await runOk('qemu-img', ['compare', '-f', 'vhdx', '-F', 'raw', place.under(name), raw]);
    expect(said).toContain('Images are identical');
  }

  it.each(['disk', 'disk.txt', 'vm.vhdx.bak', 'Ünïcode 日本', '.hidden', 'vm.spf2'])(
    'one may be called %j',
    async (name) => {
      fs.copyFileSync(place.behind('thin.vhdx'), place.behind(name));
      expect((await stat(place.under(name))).size).toBe(mapOf(place.behind('thin.vhdx')).sizeBytes);
      await expectGuest(name);
    },
  );

  it('one may lie in a folder below, beside its image or with the image below it', async () => {
    fs.mkdirSync(place.behind('below'));
    for (const name of ['vm.spf', 'vm.spi']) fs.copyFileSync(place.behind(name), place.behind(`below/${name}`));
    writePlugin(place.behind('below/vm.spi'), place.behind('below/vm.vhdx'));
    writePlugin(place.behind('below/vm.spi'), place.behind('above.vhdx'));
    for (const name of ['below/vm.vhdx', 'above.vhdx']) await expectGuest(name);
  });

  it('one that comes while the folder is mounted is a disk at once; made again, it is another', async () => {
    writePlugin(place.behind('vm.spf'), place.behind('late.vhdx'), { layout: 'dynamic' });
    await runOk('qemu-img', ['check', '-f', 'vhdx', place.under('late.vhdx')]);
    writePlugin(place.behind('vm.spi'), place.behind('late.vhdx'), { force: true, unitBytes: 2 * MiB });
    const { sizeBytes } = mapOf(place.behind('late.vhdx'));
    await eventually(async () => expect((await stat(place.under('late.vhdx'))).size).toBe(sizeBytes));
    await expectGuest('late.vhdx');
  });

  it('one that is formatted another way is one still', async () => {
    const contents = JSON.parse(fs.readFileSync(place.behind('vm.vhdx'), 'utf8')) as object;
    fs.writeFileSync(place.behind('compact.vhdx'), JSON.stringify(contents));
    fs.writeFileSync(
      place.behind('wide.vhdx'),
      `\r\n${JSON.stringify(contents, null, '\t').replaceAll('\n', '\r\n')}\r\n`,
    );
    for (const name of ['compact.vhdx', 'wide.vhdx']) await expectGuest(name);
  });

  it('a real VHDX passes through untouched, and is written', async () => {
    await runOk('qemu-img', ['create', '-q', '-f', 'vhdx', place.under('real.vhdx'), '16M']);
    await runOk('qemu-io', ['-f', 'vhdx', '-c', 'write -P 9 5M 1M', place.under('real.vhdx')]);
    await runOk('qemu-io', ['-f', 'vhdx', '-c', 'read -P 9 5M 1M', place.behind('real.vhdx')]);
    await runOk('cmp', [place.behind('real.vhdx'), place.under('real.vhdx')]);
    expect((await stat(place.under('real.vhdx'))).mode.toString(8)).toBe('100644');
    expect((await place.status()).files.map((file) => file.name)).not.toContain('real.vhdx');
  });

  const broken: ReadonlyArray<readonly [what: string, damage: (text: string) => string, says: RegExp]> = [
    ['cut off', (text) => text.slice(0, 200), /JSON.*cannot be parsed; make the plugin file again/],
    ['with a field of the wrong kind', (text) => text.replace(/"sizeBytes": \d+/, '"sizeBytes": "much"'), /sizeBytes/],
    [
      'with a field too many',
      (text) => text.replace('"image": {', '"image": { "url": "http://example.com/",'),
      /image.*url/,
    ],
    ['of another version', (text) => text.replace('"version": 1', '"version": 3'), /version/],
    [
      'with an impossible geometry',
      (text) => text.replace(/"payloadBlockBytes": \d+/, '"payloadBlockBytes": 3'),
      /payloadBlockBytes.*3 is not a power of two/,
    ],
  ];

  it.each(broken)(
    'a plugin file %s is shown, not opened, told of in the log, and may be deleted',
    async (what, damage, says) => {
      const name = `broken ${what}`;
      fs.writeFileSync(place.behind(name), damage(fs.readFileSync(place.behind('vm.vhdx'), 'utf8')));
      expect((await stat(place.under(name))).size).toBe(fs.statSync(place.behind(name)).size);
      expect((await runOk('ls', [place.mountpoint])).split('\n')).toContain(name);
      const before = place.complaints().length;
      await expect(open(place.under(name))).rejects.toMatchObject({ code: 'EIO' });
      await place.expectComplaint(new RegExp(`^${name}.*${says.source}`, 'm'), before);
      await unlink(place.under(name));
      expect(fs.existsSync(place.behind(name))).toBe(false);
    },
  );

  it('what is too large for a plugin file, or only talks of one, is a file like any other', async () => {
    const text = fs.readFileSync(place.behind('vm.vhdx'), 'utf8');
    const others = {
      large: text + ' '.repeat(maxPluginFileBytes),
      about: `about: ${text}`,
      list: `[${text}]`,
      empty: '',
    };
    for (const [name, contents] of Object.entries(others)) {
      fs.writeFileSync(place.behind(name), contents);
      expect(await readFile(place.under(name), 'utf8')).toBe(contents);
    }
  });

  it('its pointer is the same to every program, and plugin show explains it', async () => {
    const said = await veneerOk('plugin', 'show', place.behind('vm.vhdx'));
    expect(said).toContain('vm.spi');
    // Under the mount it is a disk and no longer a plugin file.
    const { status, stderr } = await run('head', ['-c', '8', place.under('vm.vhdx')]);
    expect(status, stderr).toBe(0);
    expect((await readFile(place.under('vm.vhdx'))).subarray(0, 8).toString()).toBe('vhdxfile');
  });
});
