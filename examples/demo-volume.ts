/**
 * The second part of the demo: the backup of a single volume, with no disk around it, boots. A plugin file puts a partition table and GRUB
 * around it, and `veneer boot` mounts that, starts QEMU and takes all down again.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Guest } from './guest/guest.ts';
import { veneer } from './veneer.ts';

const readyLine = /^VENEER-GUEST-READY root=(\S+) fs=(\S+) payload=([0-9a-f]{64})/m;

/** @param tell prints a line with the time */
export async function bootVolume(guest: Guest, tell: (text: string) => void): Promise<void> {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'veneer-demo-volume-'));
  try {
    const image = path.join(home, 'volume.spf');
    const plugin = path.join(home, 'volume.vhdx');
    tell(await veneer('image', 'create', '--volume', guest.volumePath, image));
    // On a busy host, software emulation can fail the kernel's test of its timer.
    const boot = ['--boot', 'bios', '--kernel-arguments', 'quiet no_timer_check'];
    tell(await veneer('plugin', 'create', ...boot, image, plugin));
    tell('veneer boot: a bare volume on a disk that is made around it');
    const said = await veneer('boot', plugin, '--target', 'qemu-virtio', '--serial', '--memory', '512M');
    const [, root, fileSystem, payload] = readyLine.exec(said) ?? [];
    if (payload !== guest.payloadSha256) throw new Error(`the volume did not boot to its right checksum:\n${said}`);
    tell(`guest up from ${root} (${fileSystem}), its checksum is right; it has shut down and is unmounted`);
  } finally {
    fs.rmSync(home, { recursive: true, force: true });
  }
}
