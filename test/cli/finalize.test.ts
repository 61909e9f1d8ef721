/** `veneer finalize --decrypt` of a disk of two files, killed where it hurts: what is in its place is never made again, and nothing stays behind. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { runInjected, whyNoStrace } from '../backup/strace.ts';
import { writeDisk } from '../mount/guest-disk.ts';
import { placeForTest, type MountPlace } from '../mount/mounted.ts';
import { Seeded } from '../seeded.ts';
import { run, runOk, veneerOk, veneerPath } from './veneer.ts';

const sizeBytes = 12 * MiB;
const timeoutMs = 120_000;
const inEnd = ['vm-flat.vmdk', 'vm.spf', 'vm.vmdk', 'vm.vmdk.finalized'];

interface Made {
  readonly place: MountPlace;
  readonly raw: string;
  readonly plugin: string;
  readonly key: readonly string[];
}

/** A sealed disk of a descriptor and an extent, complete, and what it holds. */
async function completeDisk(): Promise<Made> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  writeDisk(raw, 'finalized', sizeBytes);
  const keyPath = place.temporary.write('key', new Seeded('finalized').bytes(32));
  fs.chmodSync(keyPath, 0o600);
  const key = ['--key-file', keyPath];
  const plugin = place.behind('vm.vmdk');
  await veneerOk('image', 'create', '--encrypt', ...key, raw, place.behind('vm.spf'));
  await veneerOk('plugin', 'create', place.behind('vm.spf'), plugin, '--replacement', 'sealed');
  await veneerOk('fill', 'start', plugin, ...key);
  return { place, raw, plugin, key };
}

/** Kills the tool at its first such call on these paths, which is not done any more. */
function killAt(syscall: string, paths: readonly string[], ...args: readonly string[]): void {
  const killed = runInjected({ syscall, what: 'error=EIO:signal=SIGKILL', when: 1 }, paths, veneerPath, args);
  expect(killed.signal, `${syscall}: ${killed.stderr}`).toBe('SIGKILL');
}

async function expectSameDisk(plugin: string, raw: string): Promise<void> {
  expect(await runOk('qemu-img', ['compare', '-f', 'vmdk', '-F', 'raw', plugin, raw])).toContain('identical');
}

it(
  'killed between the two files, it goes on with the second, and keeps what was written to the first meanwhile',
  async (ctx) => {
    const noStrace = whyNoStrace();
    if (noStrace !== undefined) ctx.skip(noStrace);
    const { place, raw, plugin, key } = await completeDisk();
    killAt('rename', [`${plugin}.replacement-plain.veneer-part`], 'finalize', '--decrypt', plugin, ...key);
    expect(fs.readFileSync(plugin, 'utf8')).toContain('"plugin file"');
    expect(fs.statSync(place.behind('vm-flat.vmdk')).size).toBe(sizeBytes);
    await place.mount(...key);
    await expectSameDisk(place.under('vm.vmdk'), raw);
    const write = ['-c', 'write -P 0x77 5M 64k'];
    await runOk('qemu-io', ['-f', 'vmdk', ...write, place.under('vm.vmdk')]);
    await runOk('qemu-io', ['-f', 'raw', ...write, raw]);
    await place.unmount();
    // On a terminal, a bar for the file that is left.
    const command = [process.execPath, veneerPath, 'finalize', '--decrypt', plugin, ...key].join(' ');
    const { status, stdout } = await run('script', ['-qec', command, '/dev/null']);
    expect(status, stdout).toBe(0);
    expect(stdout).toMatch(/decrypting vm\.vmdk \[[^\]]+\] 100% \| /);
    expect(stdout).not.toContain('decrypting vm-flat.vmdk');
    expect(fs.readdirSync(place.folder).sort()).toEqual(inEnd);
    await expectSameDisk(plugin, raw);
  },
  timeoutMs,
);

it.for([
  ['the next mount', async ({ place, key }: Made) => await place.mount(...key)],
  ['finalizing again', async ({ plugin }: Made) => await veneerOk('finalize', plugin)],
] as const)(
  'killed before it clears away, the disk is whole, and %s clears away',
  { timeout: timeoutMs },
  async ([, clearAway], ctx) => {
    const noStrace = whyNoStrace();
    if (noStrace !== undefined) ctx.skip(noStrace);
    const made = await completeDisk();
    const { place, raw, plugin, key } = made;
    killAt('unlink', [`${plugin}.replacement`], 'finalize', '--decrypt', plugin, ...key);
    await expectSameDisk(plugin, raw);
    expect(fs.readdirSync(place.folder)).toContain('vm-flat.vmdk.replacement-map');
    await clearAway(made);
    expect(fs.readdirSync(place.folder).sort()).toEqual(inEnd);
    await expectSameDisk(plugin, raw);
  },
);
