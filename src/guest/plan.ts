/**
 * What reconfiguring a guest comes to: what was found, what is changed and why, and the bytes that do it. A plan is made from a disk that
 * is only read; it becomes a patch set, which can be thrown away again.
 */
import { FormatError, IntegrityError, UnsupportedError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import type { Disk } from '../disk/disk.ts';

export const targets = ['qemu', 'qemu-virtio', 'hyperv-gen1', 'hyperv-gen2', 'vmware', 'virtualbox'] as const;
/** The hypervisor's hardware that a guest is made ready for. */
export type Target = (typeof targets)[number];

/** Bytes of the guest's disk that are replaced by as many others. */
export interface Patch {
  readonly offsetBytes: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

/** One thing that is done, as people read it. */
export interface Change {
  readonly what: string;
  /** A path in the guest, with the place in it: `/etc/fstab line 3`, `SYSTEM: ControlSet001\Services\storahci`. */
  readonly where: string;
  readonly old: string;
  readonly new: string;
  readonly why: string;
}

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

/** More than any plan needs: hives are the largest thing that is patched. */
export const maxPatchedBytes = 128 * MiB;
export const maxPatches = 65_536;
/** What a patch replaces is held against the disk in pieces. */
const comparedBytes = MiB;

/** Where bytes of a disk are replaced, and what was there when the plan was made. */
export interface PatchPlace {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Fills all of target with what was there, from the patch's byte `from` on. */
  readBefore(target: Uint8Array, from: number): void;
}

/**
 * The patches in the order of the disk, having been held against it.
 * @throws FormatError, IntegrityError when one lies outside the disk, overlaps another, or the disk holds something else than `before`
 * @throws UnsupportedError when there are more than the limits
 */
export function checkPatches(patches: readonly Patch[], disk: Disk): readonly Patch[] {
  const places = patches.map((patch) => {
    const { offsetBytes, before, after } = patch;
    if (before.length !== after.length)
      throw new FormatError('patch', 'length', offsetBytes, `${after.length} bytes for ${before.length}`);
    const readBefore = (target: Uint8Array, from: number): void =>
      target.set(before.subarray(from, from + target.length));
    return { offsetBytes, lengthBytes: after.length, readBefore, patch };
  });
  return checkPlaces(places, disk).map(({ patch }) => patch);
}

/** The same of places. */
export function checkPlaces<P extends PatchPlace>(places: readonly P[], disk: Disk): readonly P[] {
  const sorted = [...places].sort((a, b) => a.offsetBytes - b.offsetBytes);
  if (sorted.length > maxPatches)
    throw new UnsupportedError(`${sorted.length} patches; at most ${maxPatches} are kept`);
  let end = 0;
  let patchedBytes = 0;
  for (const place of sorted) {
    const { offsetBytes, lengthBytes } = place;
    const wrong = (field: string, detail: string): FormatError => new FormatError('patch', field, offsetBytes, detail);
    if (lengthBytes === 0) throw wrong('length', 'has no bytes');
    if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes + lengthBytes > disk.sizeBytes)
      throw wrong('offset', `is not inside a disk of ${disk.sizeBytes} bytes`);
    if (offsetBytes < end) throw wrong('offset', 'overlaps the patch before it');
    end = offsetBytes + lengthBytes;
    patchedBytes += lengthBytes;
    if (patchedBytes > maxPatchedBytes)
      throw new UnsupportedError(`more than ${maxPatchedBytes} bytes would be patched`);
    compare(place, disk);
  }
  return sorted;
}

function compare(place: PatchPlace, disk: Disk): void {
  const { offsetBytes, lengthBytes } = place;
  const found = Buffer.alloc(Math.min(comparedBytes, lengthBytes));
  const before = Buffer.alloc(found.length);
  for (let from = 0; from < lengthBytes; from += found.length) {
    const length = Math.min(found.length, lengthBytes - from);
    disk.read(found.subarray(0, length), offsetBytes + from);
    place.readBefore(before.subarray(0, length), from);
    if (found.compare(before, 0, length, 0, length) === 0) continue;
    throw new IntegrityError(
      `the disk at byte ${offsetBytes}, which a patch replaces`,
      'what the plan was made of',
      'other bytes',
    );
  }
}
