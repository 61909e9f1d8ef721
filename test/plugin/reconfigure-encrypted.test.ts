/**
 * A guest of an encrypted image, reconfigured through the tool: what is made of it is sealed or plain as its plugin file says, its disk reads
 * with the key as planned, and without the key each command says in one line what it needs.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import type { FillStatus } from '../../src/fill/fill-status.ts';
import { OpenPlugin } from '../../src/plugin/open-plugin.ts';
import { planReconfiguration } from '../../src/plugin/reconfigure.ts';
import { readPluginFile, type ReplacementKind } from '../../src/plugin/plugin-file.ts';
import { credentialFromFile } from '../../src/backup/crypto/credential.ts';
import { runOk, veneer, veneerOk, veneerRefuses } from '../cli/veneer.ts';
import { ringOf } from '../backup/keys.ts';
import { writeSystem } from '../guest/linux/small-system.ts';
import { applyTo, run } from '../filesystem/trees.ts';
import { eventually, placeForTest, type MountPlace } from '../mount/mounted.ts';
import { Seeded } from '../seeded.ts';

const target = 'qemu-virtio';
const volumeBytes = 32 * MiB;
const withinMs = 60_000;
/** Of the guest, and of what the plan makes of it. */
const known = ['/etc/fstab', '/dev/sda1', '/dev/vda1', 'virtio_blk', 'GNU/Linux', 'grub.cfg', '070701'];

interface Machine {
  readonly place: MountPlace;
  /** Its disk, outside of the folder. */
  readonly raw: string;
  readonly plugin: string;
  readonly key: readonly string[];
  readonly keyPath: string;
}

async function encryptedMachine(kind: ReplacementKind): Promise<Machine> {
  const place = placeForTest();
  const { temporary } = place;
  writeSystem(temporary.file('tree'));
  const blank = (name: string, sizeBytes: number): string => {
    fs.writeFileSync(temporary.file(name), '');
    fs.truncateSync(temporary.file(name), sizeBytes);
    return temporary.file(name);
  };
  const volume = blank('volume', volumeBytes);
  run('mke2fs', '-q', '-F', '-t', 'ext4', '-b', '1024', '-d', temporary.file('tree'), volume);
  const raw = blank('disk', MiB + volumeBytes);
  execFileSync('/usr/sbin/sfdisk', ['--quiet', raw], { input: 'label: dos\nstart=2048, type=83\n' });
  applyTo(raw, [
    { offsetBytes: 512, before: new Uint8Array(0), after: new Uint8Array(40 * KiB).fill(0xee) },
    { offsetBytes: MiB, before: new Uint8Array(0), after: fs.readFileSync(volume) },
  ]);
  const keyPath = temporary.write('key', new Seeded('a guest that is encrypted').bytes(32));
  fs.chmodSync(keyPath, 0o600);
  const key = ['--key-file', keyPath];
  await veneerOk('image', 'create', '--encrypt', ...key, raw, place.behind('vm.spf'));
  const plugin = place.behind('vm.raw');
  await veneerOk('plugin', 'create', place.behind('vm.spf'), plugin, '--replacement', kind);
  return { place, raw, plugin, key, keyPath };
}

/** Makes of the raw disk what the plan says, by the plan alone. */
function applyPlan({ place, raw, plugin, keyPath }: Machine): void {
  const keys = ringOf(credentialFromFile('key file', keyPath));
  const opened = new OpenPlugin(readPluginFile(plugin), plugin, { allowed: { folders: [place.folder] }, keys });
  const plan = planReconfiguration(opened, target);
  expect(plan.patches.length).toBeGreaterThan(0);
  applyTo(raw, plan.patches);
}

async function expectSame(file: string, raw: string): Promise<void> {
  expect(await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', file, raw])).toContain('identical');
}

it(
  'a sealed patch set holds nothing that can be read, and its disk is read, written, filled and put in place',
  async () => {
    const machine = await encryptedMachine('sealed');
    const { place, raw, plugin, key } = machine;
    const patchSet = `${plugin}.patch-${target}`;
    expect(await veneerRefuses('reconfigure', plugin, '--target', target)).toMatch(
      /vm\.spf: is encrypted; give its key with --key-file/,
    );
    expect(fs.existsSync(patchSet)).toBe(false);
    const said = await veneerOk('reconfigure', plugin, '--target', target, ...key);
    for (const text of ['/etc/fstab', '/dev/vda1', 'virtio_blk']) expect(said).toContain(text);
    const secret = fs.readFileSync(machine.keyPath);
    const secrets = [secret, secret.toString('hex'), secret.toString('base64')];
    for (const name of fs.readdirSync(place.folder)) {
      const bytes = fs.readFileSync(place.behind(name));
      for (const text of [...known, ...secrets])
        expect(bytes.includes(text), `${text.toString()} in ${name}`).toBe(false);
    }
    expect(fs.statSync(patchSet).size).toBeGreaterThan(4 * KiB);
    expect(await veneerOk('plugin', 'show', plugin)).toMatch(
      /^patches +vm\.raw\.patch-\S+, for \S+, sealed, in force$/m,
    );
    applyPlan(machine);

    // Without the key: all that there was without it before there was a patch set, and no data.
    await place.mount();
    const disk = place.under('vm.raw');
    expect((await fs.promises.stat(disk)).size).toBe(MiB + volumeBytes);
    const handle = await fs.promises.open(disk);
    for (const attempt of [1, 2])
      await expect(handle.read(Buffer.alloc(512), 0, 512, 0), `attempt ${attempt}`).rejects.toMatchObject({
        code: 'EACCES',
      });
    await handle.close();
    await place.expectComplaint(/vm\.raw: read of \d+ bytes at 0 failed: .*vm\.spf: is encrypted; give its key/);
    await place.unmount();
    expect(await veneerRefuses('boot', plugin, '--serial')).toMatch(/vm\.spf: is encrypted; give its key/);

    await place.mount(...key);
    await expectSame(disk, raw);
    // The mount has a key that the tool was not given: what the disk boots with is read there.
    expect(await veneerRefuses('boot', disk, '--serial', '--target', 'hyperv-gen2')).toMatch(
      /has UEFI only, and the disk boots with BIOS/,
    );
    for (const file of [disk, raw]) await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 20M 300k', file]);
    await veneerOk('fill', 'start', disk);
    await eventually(async () => {
      const [status] = JSON.parse(await veneerOk('fill', 'status', '--json', disk)) as FillStatus[];
      expect(status?.state).toBe('complete');
    }, withinMs);
    await veneerOk('fill', 'verify', disk);
    await place.unmount();
    expect(await veneerRefuses('boot', plugin, '--serial')).toMatch(/vm\.spf: is encrypted; give its key/);
    await place.mount(...key);
    await eventually(async () => await veneerOk('finalize', '--decrypt', disk), withinMs);
    await place.unmount();
    await expectSame(plugin, raw);
  },
  4 * withinMs,
);

it(
  'a sealed patch set that was changed, or exchanged for a plain one, is an error of one line, and so is the other way round',
  async () => {
    const { place, plugin, key } = await encryptedMachine('sealed');
    const patchSet = `${plugin}.patch-${target}`;
    await veneerOk('reconfigure', plugin, '--target', target, ...key);
    const sealed = fs.readFileSync(patchSet);
    const boot = async (): Promise<string> => await veneerRefuses('boot', plugin, '--serial', ...key);
    /** Whoever can write here makes the plugin file's checksum right, too. */
    const putThere = async (bytes: Uint8Array): Promise<void> => {
      fs.writeFileSync(patchSet, bytes);
      const [hash = ''] = (await runOk('sha256sum', [patchSet])).split(' ');
      const [described] = readPluginFile(plugin).patchSets ?? [];
      const text = fs.readFileSync(plugin, 'utf8').replace(described?.sha256 ?? '-', hash);
      fs.writeFileSync(plugin, text.replace(`"sizeBytes": ${described?.sizeBytes}`, `"sizeBytes": ${bytes.length}`));
    };
    const changed = Buffer.from(sealed);
    changed[sealed.length - 1000] = (changed[sealed.length - 1000] ?? 0) ^ 1;
    fs.writeFileSync(patchSet, changed);
    expect(await boot()).toMatch(/patch-qemu-virtio: patch set of \S+vm\.raw: checksum is [0-9a-f]+, expected/);
    await putThere(changed);
    expect(await boot()).toMatch(/was changed since it was sealed, or sealed with another key .*; reconfigure again$/);

    const other = await encryptedMachine('plain');
    await veneerOk('reconfigure', other.plugin, '--target', target, ...other.key);
    const plain = fs.readFileSync(`${other.plugin}.patch-${target}`);
    // As was chosen.
    expect(plain.includes('/etc/fstab')).toBe(true);
    expect(await veneerOk('plugin', 'show', other.plugin)).toMatch(/^patches +\S+, for \S+, in force$/m);
    await putThere(plain);
    expect(await boot()).toMatch(/is plain, and the plugin file wants it sealed; reconfigure again$/);
    await other.place.mount(...other.key);
    expect((await fs.promises.readFile(other.place.under('vm.raw'))).includes('/dev/vda1 / ext4')).toBe(true);
    await other.place.unmount();
    // Once it is filled, it boots with neither image nor key.
    await veneerOk('fill', 'start', other.plugin, ...other.key);
    fs.rmSync(other.place.behind('vm.spf'));
    expect(await veneerRefuses('boot', other.plugin, '--serial', '--target', 'hyperv-gen2')).toMatch(
      /has UEFI only, and the disk boots with BIOS/,
    );

    // Made again, it is as before; and forgetting it takes no key.
    await veneerOk('reconfigure', plugin, '--target', target, ...key);
    const { status, stderr } = await veneer('reconfigure', plugin, '--undo');
    expect(status, stderr).toBe(0);
    expect(fs.readdirSync(place.folder).sort()).toEqual(['vm.raw', 'vm.spf']);
  },
  4 * withinMs,
);

it(
  'a native disk file that is shown is reconfigured as an image is, and its patch set is for that state of the file alone',
  async () => {
    const { place, raw } = await encryptedMachine('plain');
    const [source, plugin] = [place.behind('disk.img'), place.behind('file.raw')];
    fs.copyFileSync(raw, source);
    await veneerOk('plugin', 'create', source, plugin);
    expect(await veneerOk('reconfigure', plugin, '--target', target)).toContain('/dev/vda1');
    const opened = new OpenPlugin(readPluginFile(plugin), plugin, { allowed: { folders: [place.folder] } });
    applyTo(raw, planReconfiguration(opened, target).patches);
    await place.mount();
    await expectSame(place.under('file.raw'), raw);
    await place.unmount();
    fs.utimesSync(source, 1, 1);
    expect(() => opened.openDisk()).toThrow(/disk\.img: was changed or replaced since the plugin file was made/);
    await veneerOk('reconfigure', plugin, '--undo');
    expect(fs.existsSync(`${plugin}.patch-${target}`)).toBe(false);
  },
  4 * withinMs,
);
