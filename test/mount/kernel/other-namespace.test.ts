/** A copy of the mount in another mount namespace, as services and containers make them: it keeps nothing once the mount has ended. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import { expect, it, onTestFinished } from 'vitest';
import { createImage } from '../../../src/backup/write/create.ts';
import { MiB } from '../../../src/base/units.ts';
import { createPluginFile } from '../../../src/plugin/create.ts';
import { run, runOk, veneerOk } from '../../cli/veneer.ts';
import { expectSameBytes } from '../../disk/model-disk.ts';
import { Seeded } from '../../seeded.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';

const timeoutMs = 120_000;

function whyNot(): string | undefined {
  const tried = spawnSync('unshare', ['-m', 'true'], { encoding: 'utf8' });
  return tried.status === 0 ? undefined : `no mount namespace can be made: ${tried.stderr}`;
}

/** A complete disk, mounted. @returns its bytes */
async function completeDisk(place: MountPlace): Promise<Buffer> {
  const bytes = new Seeded('in another namespace').bytes(4 * MiB);
  await createImage(place.temporary.write('disk.raw', bytes), place.behind('vm.spf'));
  createPluginFile(place.behind('vm.spf'), place.behind('vm.raw'));
  await place.mount('--transport', 'kernel', '--fill');
  await eventually(
    async () => expect(await veneerOk('fill', 'status', place.under('vm.raw'))).toContain('complete'),
    60_000,
  );
  return bytes;
}

/** A process with mounts of its own, among which is a copy of this one. */
async function copyIn(place: MountPlace, ...program: readonly string[]): Promise<ChildProcess> {
  const child = spawn('unshare', ['-m', '--propagation', 'private', ...program], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  await eventually(() => {
    expect(fs.readlinkSync(`/proc/${child.pid}/ns/mnt`)).not.toBe(fs.readlinkSync('/proc/self/ns/mnt'));
    expect(fs.readFileSync(`/proc/${child.pid}/mountinfo`, 'utf8')).toContain(place.mountpoint);
  });
  return child;
}

async function isLocked(file: string): Promise<boolean> {
  return (await run('flock', ['-n', file, 'true'])).status !== 0;
}

it(
  'after the unmount a complete disk is locked no more: it is mounted, written and finalized again',
  { timeout: timeoutMs },
  async (ctx) => {
    const why = whyNot();
    if (why !== undefined) ctx.skip(why);
    const place = placeForTest();
    const bytes = await completeDisk(place);
    // The kernel reads it by itself where it can.
    expectSameBytes(await fs.promises.readFile(place.under('vm.raw')), bytes, 'mounted');
    const copy = await copyIn(place, 'sleep', '600');
    await place.unmount();
    await eventually(() => expect(place.servers()).toEqual([]));
    expect(fs.readFileSync(`/proc/${copy.pid}/mountinfo`, 'utf8')).toContain(place.mountpoint);
    expect(await isLocked(place.behind('vm.raw.replacement'))).toBe(false);
    await place.mount('--transport', 'kernel');
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x55 1M 64k', place.under('vm.raw')]);
    await veneerOk('finalize', place.under('vm.raw'));
    await place.unmount();
    expectSameBytes(
      fs.readFileSync(place.behind('vm.raw')),
      Buffer.from(bytes).fill(0x55, MiB, MiB + 65_536),
      'finalized',
    );
    expect(copy.exitCode).toBe(null);
  },
);

const holder = `
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, 37, struct.pack('@hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))
print('held', flush=True)
if len(sys.argv) > 2: sys.stdin.readline()
`;

it(
  'after the unmount, locks of ranges that programs there have taken are given up, and a disk that one has open stays locked until it ends',
  { timeout: timeoutMs },
  async (ctx) => {
    const why = whyNot();
    if (why !== undefined) ctx.skip(why);
    const place = placeForTest();
    await completeDisk(place);
    fs.writeFileSync(place.behind('file'), '');
    const programs: ChildProcess[] = [];
    for (const name of ['file', 'vm.raw']) {
      const program = await copyIn(place, '/usr/bin/python3', '-c', holder, place.under(name), 'stay');
      const said = new Promise((resolve) => program.stdout?.once('data', (data: Buffer) => resolve(data.toString())));
      expect(await said).toMatch(/^held/);
      programs.push(program);
    }
    await place.unmount();
    await eventually(() => expect(place.servers()).toEqual([]));
    await runOk('/usr/bin/python3', ['-c', holder, place.behind('file')]);
    // Through the kernel it still writes.
    const isDirect = await isLocked(place.behind('vm.raw.replacement'));
    for (const program of programs) {
      const ended = new Promise((resolve) => program.once('exit', resolve));
      program.kill('SIGKILL');
      await ended;
    }
    await eventually(async () => expect(await isLocked(place.behind('vm.raw.replacement'))).toBe(false));
    expect(isDirect).toBe(true);
  },
);
