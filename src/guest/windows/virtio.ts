/**
 * virtio's drivers are not part of Windows. Where the guest has them (it ran on KVM before, or they were installed for the purpose), they
 * are started at boot. They are not added: a driver is a new file, and files are only changed in place.
 */
import type { RecordedEdits } from './recorded-edits.ts';
import { startAtBoot } from './services.ts';
import type { WindowsFileSystem } from './windows-file-system.ts';

/** Of virtio-blk and of virtio-scsi. */
const drivers = ['viostor', 'vioscsi'] as const;
const howToGetThem =
  'start it once with --target qemu (IDE, SATA or NVMe), install virtio-win there, and use qemu-virtio for the next image';

/** @returns what keeps Windows from starting on virtio */
export function startVirtio(edits: RecordedEdits, fileSystem: WindowsFileSystem, controlSet: string): string[] {
  const present = drivers.filter((name) => {
    const file = `/Windows/System32/drivers/${name}.sys`;
    if (fileSystem.stat(file)?.type !== 'file') return false;
    return startAtBoot(edits, controlSet, name, `the boot disk is on virtio, which ${name} drives`);
  });
  if (present.length === drivers.length) return [];
  const missing = drivers.filter((name) => !present.includes(name)).join(' and ');
  return [`${controlSet}: this Windows has no ${missing} and does not start from such a disk; ${howToGetThem}`];
}
