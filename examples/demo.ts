/**
 * `npm run demo`: a machine is lost, and runs again from its image backup.
 *
 * A small real Linux guest is made from Debian packages; it is backed up in full and again after a change; its disk is thrown away; a plugin
 * file is mounted; QEMU boots the guest from it. The guest itself reports a checksum of a file that it reads through all of that. Then it runs
 * again and writes, gets a disk file of its own behind its back, and at the end boots from that with nothing of ours running.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bootVolume } from './demo-volume.ts';
import { bootGuest, probeAccelerator } from './guest/boot.ts';
import { buildGuestDisk, type Guest } from './guest/guest.ts';
import { runReplacementStory } from './replacement-story.ts';
import { veneer } from './veneer.ts';

const run = promisify(execFile);
const cacheDir = fileURLToPath(new URL('../.cache', import.meta.url));
const startMs = performance.now();

function tell(text: string): void {
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1).padStart(6);
  console.log(`${seconds} s  ${text.replaceAll('\n', '\n            ')}`);
}

async function main(): Promise<void> {
  tell('building a small Linux guest from Debian packages (kept in .cache for the next time)');
  const guest = await buildGuestDisk({
    flavour: 'cloud',
    cacheDir: path.join(cacheDir, 'packages'),
    outDir: path.join(cacheDir, 'guest'),
  });
  tell(`guest disk: ${mebibytes(guest.diskBytes)}, Linux ${guest.kernelVersion}`);

  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'veneer-demo-'));
  const folder = path.join(home, 'backups');
  const mountpoint = path.join(home, 'disks');
  try {
    fs.mkdirSync(folder);
    fs.mkdirSync(mountpoint);
    await backUp(guest, home, folder);
    const imagesBefore = hashOfImages(folder);
    await recover(guest, home, mountpoint, folder);
    await runReplacementStory({ guest, folder, mountpoint, pluginName: 'vm.vhdx', format: 'vhdx', tell });
    if (hashOfImages(folder) !== imagesBefore) throw new Error('the images changed');
    tell('the images are what they were, byte for byte');
    await bootVolume(guest, tell);
  } finally {
    if (isMounted(mountpoint)) await veneer('unmount', '--lazy', mountpoint);
    fs.rmSync(home, { recursive: true, force: true });
  }
  tell('unmounted; the backups and the overlay of this demo are removed again');
}

/** A full image, a change, an incremental image; then the disk is gone. */
async function backUp(guest: Guest, home: string, folder: string): Promise<void> {
  const disk = path.join(home, 'machine.raw');
  fs.copyFileSync(guest.diskPath, disk);
  tell(await veneer('image', 'create', disk, path.join(folder, 'vm.spf')));

  const note = path.join(home, 'note');
  fs.writeFileSync(note, 'written after the full image\n');
  await run('/sbin/debugfs', ['-w', '-R', `write ${note} /note`, `${disk}?offset=${guest.partitionOffsetBytes}`]);
  tell(await veneer('image', 'create', disk, path.join(folder, 'vm.spi'), '--parent', path.join(folder, 'vm.spf')));
  fs.rmSync(disk);
  tell("the machine's disk is gone: only its image backups are left");
}

async function recover(guest: Guest, home: string, mountpoint: string, folder: string): Promise<void> {
  tell(await veneer('plugin', 'create', path.join(folder, 'vm.spi'), path.join(folder, 'vm.vhdx')));
  const mountedMs = performance.now();
  await veneer('mount', folder, mountpoint);
  const disk = path.join(mountpoint, 'vm.vhdx');
  tell(
    `mounted: vm.vhdx (${fs.statSync(path.join(folder, 'vm.vhdx')).size} bytes of text) reads as a file of ${mebibytes((await fs.promises.stat(disk)).size)}`,
  );
  await readFirstBytes(disk);
  tell(
    `first bytes read ${seconds(performance.now() - mountedMs)} after the mount began; the image is not open yet: ${await imageState(mountpoint)}`,
  );

  const probe = await probeAccelerator();
  tell(`booting QEMU (${probe.accelerator}: ${probe.reason}); the guest's writes go to a qcow2 overlay`);
  const booted = await bootGuest({ drive: disk, format: 'vhdx', overlay: path.join(home, 'overlay.qcow2') });
  tell(`guest up ${seconds(booted.readyAfterMs)} after QEMU started, root on ${booted.rootDevice} (${booted.fsType})`);
  if (booted.payloadSha256 !== guest.payloadSha256) {
    throw new Error(
      `the guest read a file with SHA-256 ${booted.payloadSha256}, which should be ${guest.payloadSha256}`,
    );
  }
  tell(`the guest's checksum of its file is right: ${guest.payloadSha256.slice(0, 16)}...; it has shut down`);
  console.log((await veneer('status', mountpoint)).replaceAll(/^/gm, '          '));
  await veneer('unmount', mountpoint);
}

async function readFirstBytes(disk: string): Promise<void> {
  const file = await fs.promises.open(disk);
  try {
    const { buffer } = await file.read(Buffer.alloc(8), 0, 8, 0);
    if (buffer.toString('latin1') !== 'vhdxfile') throw new Error('the mounted file does not start as a VHDX');
  } finally {
    await file.close();
  }
}

async function imageState(mountpoint: string): Promise<string> {
  const [mount] = JSON.parse(await veneer('status', '--json', mountpoint)) as { files: { imageOpens: number }[] }[];
  const opens = mount?.files[0]?.imageOpens;
  if (opens !== 0) throw new Error('reading the header opened the image');
  return `opened ${opens} times`;
}

function hashOfImages(folder: string): string {
  const hash = createHash('sha256');
  for (const name of ['vm.spf', 'vm.spi']) hash.update(fs.readFileSync(path.join(folder, name)));
  return hash.digest('hex');
}

function isMounted(mountpoint: string): boolean {
  return fs.readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${mountpoint} `);
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

try {
  await main();
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
