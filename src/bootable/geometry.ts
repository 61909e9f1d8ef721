/**
 * The geometry of a disk that is made around volumes: a partition table, boot code and boot files, none of which any image holds. It is
 * planned once, when the plugin file is made, and lies in the plugin file; `assemble.ts` turns it and the open volumes into a Disk.
 *
 *     MBR, BIOS    LBA 0 boot code and table | 1.. GRUB's core | 1792 GRUB's configuration | 2048 volumes ... | room
 *     GPT, BIOS    the same with the GPT at LBA 1 to 33, and GRUB's core in a partition of its own at LBA 2048
 *     GPT, UEFI    protective MBR, GPT | 2048 EFI system partition | volumes ... | room | second GPT
 *     MBR, UEFI    table | 2048 EFI system partition | volumes ... | room
 *
 * `room` is 32 MiB after the last volume, for an initramfs that a patch set brings: zeros until then.
 */
import { KiB, MiB } from '../base/units.ts';
import type { Guid } from '../bytes/guid.ts';

/** Partitions that we place start at multiples of this. */
export const partitionAlignmentBytes = MiB;
/** MBR: four, of which the EFI system partition may take one. */
export const maxVolumes = 4;
/** GRUB reads its configuration from these sectors; the core is built to look there. */
export const configLba = 1792;
/** The configuration is padded to this size, so that another one changes nothing else. */
export const configBytes = 16 * KiB;
export const maxBootFileBytes = 16 * MiB;
export const roomBytes = 32 * MiB;
/** Large enough for FAT32, which the UEFI specification asks for. */
export const efiSystemPartitionBytes = 64 * MiB;
export const biosBootPartitionBytes = MiB;

export const partitionStyles = ['mbr', 'gpt'] as const;
export type PartitionStyle = (typeof partitionStyles)[number];
export const firmwares = ['bios', 'uefi'] as const;
export type Firmware = (typeof firmwares)[number];

/** What a partition is for: its type in the MBR, and in the GPT. */
export const partitionTypes = {
  linux: { mbr: 0x83, gpt: '0fc63daf-8483-4772-8e79-3d69d8477de4' },
  lvm: { mbr: 0x8e, gpt: 'e6d6d379-f507-44c2-a23c-238f2a3df928' },
  luks: { mbr: 0x83, gpt: 'ca7d7ccb-63ed-4c53-861c-1742536059cc' },
  swap: { mbr: 0x82, gpt: '0657fd6d-a4ab-43c4-84e5-0933c84b4f4f' },
  windows: { mbr: 0x07, gpt: 'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7' },
  fat: { mbr: 0x0c, gpt: 'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7' },
  'efi-system': { mbr: 0xef, gpt: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b' },
  'bios-boot': { mbr: 0xda, gpt: '21686148-6449-6e6f-744e-656564454649' },
} as const;
export type PartitionType = keyof typeof partitionTypes;
export const partitionTypeNames = Object.keys(partitionTypes) as PartitionType[];

export interface Partition {
  readonly type: PartitionType;
  /** Multiples of 512. */
  readonly startBytes: number;
  readonly sizeBytes: number;
  readonly guid: Guid;
  /** The one that MBR boot code starts. */
  readonly active: boolean;
  /** Index of the volume in it; undefined for the ones that we make. */
  readonly volume?: number;
}

/** Bytes of the boot file that stands beside the plugin file. */
export interface BootFileRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** A file of the EFI system partition: from the boot file, or the configuration. */
export interface EfiFile {
  /** With slashes, in upper case, each part 8.3. */
  readonly path: string;
  readonly from: 'config' | BootFileRange;
}

/** Bytes of a volume that read otherwise on this disk: where it says that it starts. */
export interface VolumePatch {
  /** In the volume. */
  readonly offset: number;
  readonly base64: string;
}

export interface BootableGeometry {
  readonly style: PartitionStyle;
  readonly firmware: Firmware;
  readonly sizeBytes: number;
  /** At byte 440 of the MBR; 0 for none. */
  readonly diskSignature: number;
  readonly diskGuid: Guid;
  /** The first 440 bytes at most; none for UEFI. */
  readonly bootCodeBase64?: string;
  /** GRUB's core: where it lies on the disk. */
  readonly core?: BootFileRange & { readonly startBytes: number };
  /** Of GRUB, as text. */
  readonly config?: string;
  readonly efiFiles?: readonly EfiFile[];
  readonly partitions: readonly Partition[];
  /** One for each volume, in order. */
  readonly volumes: ReadonlyArray<{ readonly sizeBytes: number; readonly patches: readonly VolumePatch[] }>;
  /** For an initramfs that a patch set brings; only where GRUB boots. */
  readonly room?: { readonly startBytes: number; readonly sizeBytes: number };
}
