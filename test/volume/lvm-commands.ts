/** Has LVM describe logical volumes in a raw file, with no device mapper, which a container may lack. */
import { run } from '../filesystem/trees.ts';

/** One of LVM's commands with its arguments; returns what it printed. */
export type Lvm = (...args: readonly string[]) => string;

/** Makes the part of the file a physical volume of a new group with extents of 4 MiB. @returns where the first extent lies in that part */
export function layLogicalVolumes(
  image: string,
  part: { readonly offset: number; readonly sizeBytes: number },
  group: string,
  addVolumes: (lvm: Lvm) => void,
): number {
  const place = ['--offset', String(part.offset), '--sizelimit', String(part.sizeBytes)];
  const device = run('losetup', '--find', '--show', ...place, image).trim();
  const config = `devices { scan=["/dev"] filter=["a|^${device}$|","r|.*|"] use_devicesfile=0 } activation { udev_sync=0 udev_rules=0 }`;
  const lvm: Lvm = (...args) => run('lvm', ...args, '--driverloaded', 'n', '--config', config);
  try {
    lvm('pvcreate', '-qq', '-ff', '-y', device);
    lvm('vgcreate', '-qq', '-s', '4m', group, device);
    addVolumes(lvm);
    return Number(lvm('pvs', '--noheadings', '--nosuffix', '--units', 'b', '-o', 'pe_start', device).trim());
  } finally {
    run('losetup', '--detach', device);
  }
}

/** A volume without its device. */
export function addLogicalVolume(lvm: Lvm, group: string, name: string, extents: number): void {
  lvm('lvcreate', '-qq', '-an', '-Zn', '-Wn', '-l', String(extents), '-n', name, group);
}
