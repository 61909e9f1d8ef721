/** `veneer boot`, as a user meets it: a guest runs, its writes are kept, signals end it, and nothing is left behind. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import { buildGuestVolume, type GuestVolume } from '../../examples/guest/guest.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { MiB } from '../../src/base/units.ts';
import { placeForTest, type MountPlace } from '../mount/mounted.ts';
import { TempFolder } from '../temp-folder.ts';
import { run, veneerOk, veneerPath, veneerRefuses } from './veneer.ts';

const cacheDir = path.join(import.meta.dirname, '../../.cache');
const bootsWithinMs = 600_000;
const readyLine = /^VENEER-GUEST-READY root=\S+ fs=ext4 payload=([0-9a-f]{64})/m;

let volume: GuestVolume;
let image: string;

beforeAll(async () => {
  const folder = new TempFolder();
  volume = await buildGuestVolume(
    { flavour: 'cloud', cacheDir: path.join(cacheDir, 'packages'), outDir: path.join(cacheDir, 'guest') },
    'ext4',
  );
  image = folder.file('vm.spf');
  await createImage(volume.path, image, { content: 'volume' });
  return () => folder.remove();
}, bootsWithinMs);

/** A folder with the image and a plugin file; `home` takes what the tool leaves in the temporary folder. */
async function placeWith(name: string, ...options: readonly string[]): Promise<MountPlace & { home: string }> {
  const place = Object.assign(placeForTest(), { home: '' });
  place.home = place.temporary.file('own');
  fs.mkdirSync(place.home);
  fs.copyFileSync(image, place.behind('vm.spf'));
  const boot = ['--boot', 'bios', '--kernel-arguments', 'quiet no_timer_check', ...options];
  await veneerOk('plugin', 'create', ...boot, place.behind('vm.spf'), place.behind(name));
  return place;
}

interface Running {
  readonly child: ChildProcess;
  output: string;
  /** Resolves when the output matches, or the tool has ended. */
  until(pattern: RegExp): Promise<void>;
  /** Its exit status. */
  readonly ended: Promise<number | null>;
}

function start(place: { home: string }, ...args: readonly string[]): Running {
  const child = spawn(process.execPath, [veneerPath, 'boot', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: place.home },
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const ended = once(child, 'close').then(([status]) => status as number | null);
  const running: Running = {
    child,
    output: '',
    ended,
    until: async (pattern) => {
      await new Promise<void>((resolve) => {
        const look = (): void => {
          if (pattern.test(running.output)) resolve();
        };
        child.stdout.on('data', look);
        void ended.then(() => resolve());
        look();
      });
    },
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (running.output += text));
  }
  return running;
}

/** No mount, no process, no temporary file of it is there any more. */
function expectNothingLeft(place: { home: string }): void {
  expect(fs.readdirSync(place.home)).toEqual([]);
  expect(fs.readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(place.home);
  const named = fs
    .readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      try {
        return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(place.home);
      } catch {
        return false;
      }
    });
  expect(named).toEqual([]);
}

it(
  'runs the guest on a mount of its own until it powers off, keeps what it wrote, and leaves nothing else behind',
  async () => {
    const place = await placeWith('vm.vhdx');
    const args = [place.behind('vm.vhdx'), '--target', 'qemu-virtio', '--serial', '--memory', '512M', '--'];
    const first = start(place, ...args, '-smbios', 'type=1,serial=veneer.write');
    expect(await first.ended, first.output).toBe(0);
    expect(readyLine.exec(first.output)?.[1]).toBe(volume.payloadSha256);
    expect(first.output).toMatch(/^qemu-system-x86_64 -machine pc -accel .* -m 512 .*virtio-blk-pci/m);
    const [, wrote] = /^VENEER-GUEST-WROTE sha256=([0-9a-f]{64})/m.exec(first.output) ?? [];
    expectNothingLeft(place);
    // On another controller of the same kind of guest, from a mount that there is.
    await place.mount();
    const second = start(place, place.under('vm.vhdx'), '--controller', 'ide', '--serial', '--memory', '512M');
    expect(await second.ended, second.output).toBe(0);
    expect(second.output).toContain(`VENEER-GUEST-KEPT sha256=${wrote} expected=${wrote}`);
    expect(place.isMounted).toBe(true);
    expectNothingLeft(place);
    expect(place.complaints()).toEqual([]);
  },
  bootsWithinMs,
);

it(
  'several volumes on a disk for UEFI start a machine with UEFI, on the controller of the hypervisor that is named',
  async () => {
    const place = await placeWith('unused.raw');
    await createImage(place.temporary.write('data', Buffer.alloc(3 * MiB, 'data')), place.behind('data.spf'), {
      content: 'volume',
    });
    const volumes = ['--volume', place.behind('vm.spf'), '--volume', place.behind('data.spf')];
    const boot = ['--boot', 'uefi', '--kernel-arguments', 'quiet no_timer_check'];
    await veneerOk('plugin', 'create', ...boot, ...volumes, place.behind('vm.qcow2'));
    const running = start(place, place.behind('vm.qcow2'), '--target', 'qemu-virtio', '--uefi', '--serial');
    expect(await running.ended, running.output).toBe(0);
    expect(running.output).toMatch(/^qemu-system-x86_64 -machine q35 .* -m 2048 .*OVMF_CODE.*virtio-blk-pci/m);
    expect(readyLine.exec(running.output)?.[1]).toBe(volume.payloadSha256);
    expectNothingLeft(place);
  },
  bootsWithinMs,
);

it(
  'asks the guest to power down on a signal, ends one that does not, and says so',
  async () => {
    const place = await placeWith('vm.qcow2', '--write', 'discard');
    const args = [place.behind('vm.qcow2'), '--target', 'qemu-virtio', '--serial', '--memory', '512M'];
    const hold = ['--', '-smbios', 'type=1,serial=veneer.hold'];
    const before = fs.readdirSync(place.folder);
    const running = start(place, ...args, '--stop-within', '1', ...hold);
    await running.until(readyLine);
    running.child.kill('SIGTERM');
    expect(await running.ended, running.output).toBe(1);
    expect(running.output).toMatch(/asking the guest to power down; a second signal ends it at once$/m);
    expect(running.output).toMatch(/^veneer: .*the guest did not power down by itself; it was stopped$/m);
    expectNothingLeft(place);
    expect(fs.readdirSync(place.folder)).toEqual(before);
  },
  bootsWithinMs,
);

it(
  'a signal before the guest runs takes the mount away again',
  async () => {
    const place = await placeWith('vm.raw');
    const running = start(place, place.behind('vm.raw'), '--serial', '--stop-within', '0');
    await running.until(/./);
    running.child.kill('SIGINT');
    expect(await running.ended, running.output).toBe(1);
    expectNothingLeft(place);
  },
  bootsWithinMs,
);

it('what cannot be started is refused in one line, and nothing is left behind', async () => {
  const place = await placeWith('vm.vhdx');
  const plugin = place.behind('vm.vhdx');
  // Of its own, since other tests boot at the same time.
  vi.stubEnv('TMPDIR', place.home);
  onTestFinished(() => void vi.unstubAllEnvs());
  const refuses = async (...args: readonly string[]): Promise<string> => await veneerRefuses('boot', ...args);
  expect(await refuses(place.behind('vm.spf'))).toMatch(
    /vm\.spf: is not a sound plugin file; make one with veneer plugin/,
  );
  expect(await refuses(place.behind('away.vhdx'))).toMatch(/away\.vhdx: cannot be opened.*ENOENT/);
  expect(await refuses(plugin, '--target', 'hyperv-gen2')).toMatch(
    /hyperv-gen2 has UEFI only, and the disk boots with BIOS/,
  );
  expect(await refuses(plugin, '--target', 'hyperv-gen1', '--uefi')).toMatch(
    /hyperv-gen1 has BIOS only; choose another/,
  );
  expect(await refuses(plugin, '--memory', 'much')).toMatch(/--memory: "much" is not a size/);
  expect(await refuses(plugin, '--processors', '0')).toMatch(/--processors: "0" is not a number from 1 to 64/);
  expectNothingLeft(place);
});

it('a missing QEMU or UEFI firmware is named with its package', async (ctx) => {
  if (process.getuid?.() !== 0) return ctx.skip('hiding the packages takes root');
  const place = await placeWith('vm.vhdx');
  const nothing = place.temporary.file('nothing');
  fs.mkdirSync(nothing);
  const bootWithout = async (hide: string, firmware: string): Promise<string> => {
    const command = `${process.execPath} ${veneerPath} boot ${place.behind('vm.vhdx')} --serial ${firmware}`;
    const { status, stdout, stderr } = await run('unshare', ['-m', 'bash', '-c', `${hide} && exec ${command}`]);
    expect(status, stdout + stderr).toBe(1);
    return stderr;
  };
  expect(await bootWithout(`mount --bind ${nothing} /usr/share/OVMF`, '--uefi')).toMatch(
    /^veneer: .*install the package ovmf, or use --bios\n$/,
  );
  const programs = place.temporary.file('programs');
  fs.mkdirSync(programs);
  for (const name of ['setpriv', 'fusermount3', 'mount', 'umount', 'bash']) {
    fs.symlinkSync(`/usr/bin/${name}`, path.join(programs, name));
  }
  expect(await bootWithout(`export PATH=${programs}`, '--bios')).toMatch(
    /veneer: qemu-system-x86_64 is not installed; install the package qemu-system-x86\n$/,
  );
});
