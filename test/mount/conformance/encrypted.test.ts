/** The disk of an encrypted image: written, filled, served alone and put in place, with what leaves the image sealed or plain as was chosen. */
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { askMount } from '../../../src/mounts/control.ts';
import { mountFiles } from '../../../src/mounts/mount-record.ts';
import type { FillStatus } from '../../../src/fill/fill-status.ts';
import { replacementKinds, type ReplacementKind } from '../../../src/plugin/plugin-file.ts';
import { run, runOk, veneer, veneerOk, veneerRefuses } from '../../cli/veneer.ts';
import { patience } from '../../patience.ts';
import { Seeded, seededTest } from '../../seeded.ts';
import { writeDisk } from '../guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';

const withinMs = 60_000;
const sizeBytes = 12 * MiB + 512;
/** What the guest writes is found by it. */
const marker = Buffer.alloc(64, 0x5a);
const writes = ['write -P 0x5a 9M 1M', 'write -P 0x5a 1234432 7680', 'flush'].flatMap((write) => ['-c', write]);

interface Encrypted {
  readonly place: MountPlace;
  readonly raw: string;
  readonly keyFile: string;
}

async function encryptedImage(): Promise<Encrypted> {
  const place = placeForTest();
  const { seed } = seededTest('encrypted under a mount');
  const raw = place.temporary.file('disk.raw');
  writeDisk(raw, seed, sizeBytes);
  const keyFile = place.temporary.file('key');
  fs.writeFileSync(keyFile, new Seeded(`${seed} key`).bytes(32), { mode: 0o600 });
  await veneerOk('image', 'create', '--encrypt', '--key-file', keyFile, raw, place.behind('vm.spf'));
  return { place, raw, keyFile };
}

async function withPlugin(kind: ReplacementKind): Promise<Encrypted> {
  const made = await encryptedImage();
  const { place } = made;
  await veneerOk('plugin', 'create', place.behind('vm.spf'), place.behind('vm.raw'), '--replacement', kind);
  return made;
}

async function expectSameDisk(file: string, raw: string): Promise<void> {
  expect(await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', file, raw])).toContain('identical');
}

async function expectComplete(file: string): Promise<void> {
  const { socket } = mountFiles(path.dirname(file));
  const ask = { file: path.basename(file) };
  const expectState = (statuses: readonly FillStatus[]): void =>
    expect(statuses.map(({ state }) => state)).toEqual(['complete']);
  await eventually(async () => expectState(await askMount(socket, 'fill.status', ask, patience(30_000))), withinMs);
  expectState(JSON.parse(await veneerOk('fill', 'status', '--json', file)) as FillStatus[]);
}

describe('a plugin file for an encrypted image', () => {
  it('is not made before it was chosen what becomes of what is written', async () => {
    const { place, raw } = await encryptedImage();
    const create = ['plugin', 'create', place.behind('vm.spf'), place.behind('vm.vhdx')];
    expect(await veneerRefuses(...create)).toMatch(
      /is encrypted; say whether .*--replacement sealed or --replacement plain/,
    );
    expect(fs.existsSync(place.behind('vm.vhdx'))).toBe(false);
    await veneerOk(...create, '--replacement', 'sealed');
    expect(await veneerOk('plugin', 'show', place.behind('vm.vhdx'))).toMatch(/^kept +sealed$/m);
    await veneerOk('image', 'create', raw, place.behind('plain.spf'));
    const plain = ['plugin', 'create', place.behind('plain.spf'), place.behind('plain.vhdx')];
    expect(await veneerRefuses(...plain, '--replacement', 'sealed')).toContain('is not encrypted');
  });
});

describeAboveTransports('the disk of an encrypted image', (transport) => {
  it.each(replacementKinds)(
    'whose writes are kept %s is written, filled, cut over and put in place',
    { timeout: 2 * withinMs },
    async (kind) => {
      const { place, raw, keyFile } = await withPlugin(kind);
      const mount = async (): Promise<void> => await place.mount(...transport.options, '--key-file', keyFile);
      const disk = place.under('vm.raw');
      const data = place.behind('vm.raw.replacement');
      await mount();
      await runOk('qemu-io', ['-f', 'raw', ...writes, raw]);
      await runOk('qemu-io', ['-f', 'raw', ...writes, disk]);
      expect((await fs.promises.stat(disk)).size).toBe(sizeBytes);
      await place.unmount();
      // Found again by another process, and not by who reads the files.
      await mount();
      await expectSameDisk(disk, raw);
      await veneerOk('fill', 'start', disk);
      await expectComplete(disk);
      await veneerOk('fill', 'verify', disk);
      await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 5M 64k', disk]);
      await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 5M 64k', raw]);
      await expectSameDisk(disk, raw);
      await place.unmount();
      const kept = fs.readFileSync(data);
      expect(kept.includes(marker)).toBe(kind === 'plain');
      for (const file of [data, `${data}-map`, mountFiles(place.mountpoint).log, place.behind('vm.raw')])
        expect(fs.readFileSync(file).includes(fs.readFileSync(keyFile)), file).toBe(false);
      const guest = fs.readFileSync(raw).subarray(3 * MiB, 3 * MiB + 512);
      expect(kept.includes(guest)).toBe(kind === 'plain');
      await mount();
      await expectSameDisk(disk, raw);
      if (kind === 'sealed') {
        expect(await veneerRefuses('finalize', disk)).toMatch(/is sealed; veneer finalize --decrypt/);
        const handle = await fs.promises.open(disk, 'r+');
        try {
          expect(await veneerRefuses('finalize', '--decrypt', disk)).toContain('is open');
        } finally {
          await handle.close();
        }
      }
      await eventually(async () => {
        const { status, stderr } = await veneer('finalize', '--decrypt', disk);
        expect(status, stderr).toBe(0);
        expect(/^decrypting vm\.raw: 100 % \(\S+ MiB of \S+ MiB\)$/m.test(stderr), stderr).toBe(kind === 'sealed');
      }, withinMs);
      expect(await veneerOk('finalize', disk)).toMatch(/is an ordinary disk file now; .*vm\.raw\.finalized$/m);
      await place.unmount();
      await expectSameDisk(place.behind('vm.raw'), raw);
      expect(fs.readdirSync(place.folder).sort()).toEqual(['vm.raw', 'vm.raw.finalized', 'vm.spf']);
    },
  );

  it('shows its metadata without the key, and neither takes writes nor reads what is sealed', async () => {
    const { place, keyFile } = await withPlugin('sealed');
    const disk = place.under('vm.raw');
    await place.mount(...transport.options);
    expect((await fs.promises.stat(disk)).size).toBe(sizeBytes);
    expect((await run('qemu-io', ['-f', 'raw', ...writes, disk])).status).not.toBe(0);
    expect(fs.existsSync(place.behind('vm.raw.replacement-map'))).toBe(false);
    await place.expectComplaint(/vm\.spf: is encrypted; give its key/);
    await place.unmount();
    await place.mount(...transport.options, '--key-file', keyFile);
    await runOk('qemu-io', ['-f', 'raw', ...writes, disk]);
    await place.unmount();
    await place.mount(...transport.options);
    expect((await fs.promises.stat(disk)).size).toBe(sizeBytes);
    await expect(fs.promises.readFile(disk)).rejects.toMatchObject({ code: 'EACCES' });
    await place.expectComplaint(
      /^(open|vm\.raw: read of \d+ bytes at 0 failed): .*vm\.spf: is encrypted; give its key/m,
    );
    await place.unmount();
    // Nor without a mount: one line that says what to do, and how is an option of each command.
    const needKey = [['status'], ['start'], ['pause'], ['cancel'], ['verify']].map(([action = '']) => ['fill', action]);
    for (const command of [...needKey, ['finalize', '--decrypt']])
      expect(await veneerRefuses(...command, place.behind('vm.raw'))).toMatch(
        /vm\.spf: is encrypted; give its key with --key-file/,
      );
    expect(await veneerOk('fill', 'status', place.behind('vm.raw'), '--key-file', keyFile)).toContain('intercepting');
  });
});
