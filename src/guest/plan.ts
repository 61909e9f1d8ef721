/**
 * What reconfiguring a guest comes to: what was found, what is changed and why, and the bytes that do it. A plan is made from a disk that
 * is only read; it becomes a patch set, which can be thrown away again.
 */
import type { Change, Patch } from '../filesystem/edit/patch.ts';

export const targets = ['qemu', 'qemu-virtio', 'hyperv-gen1', 'hyperv-gen2', 'vmware', 'virtualbox'] as const;
/** The hypervisor's hardware that a guest is made ready for. */
export type Target = (typeof targets)[number];

export interface GuestDescription {
  readonly os: 'linux' | 'windows';
  /** For people: `Debian GNU/Linux 12 (bookworm)`. */
  readonly name: string;
  readonly version: string;
  /** Of a Linux, the kernel that it boots. */
  readonly kernel?: string;
  /** What it can be started by, as far as its disk shows. */
  readonly firmware: readonly ('bios' | 'uefi')[];
  /** The names by which its configuration calls its disks: `/dev/sda1`, `UUID=...`. */
  readonly diskNames: readonly string[];
  /** Those that it has for its boot disk now. */
  readonly storageDrivers: readonly string[];
}

export interface GuestPlan {
  readonly guest: GuestDescription;
  readonly changes: readonly Change[];
  /** Of the guest's whole disk; none overlaps another. */
  readonly patches: readonly Patch[];
  /** What is not done, or could not be seen, and what follows from that. One line each. */
  readonly warnings: readonly string[];
  /** To be loaded behind the guest's own: a newc cpio, not compressed. */
  readonly initramfs?: Uint8Array;
  /** What the boot loader that is put around a volume is to boot. */
  readonly boot?: LinuxBoot;
}

/** Paths as GRUB sees them on its partition. */
export interface LinuxBoot {
  readonly kernel: string;
  readonly initrds: readonly string[];
  readonly arguments: string;
  /** The number of the partition with the kernel, where the disk has partitions. */
  readonly partition?: number;
  /** GRUB's name of a logical volume of LVM that it lies on: `lvm/group-name`. */
  readonly device?: string;
}
