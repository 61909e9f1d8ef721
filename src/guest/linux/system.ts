/** A Linux system on a guest's disk: the volume with its root, what its fstab mounts there, and files looked up across them. */
import { MiB } from '../../base/units.ts';
import type { FilesByPath } from '../../filesystem/by-path.ts';
import { isRefusal, type GuestDisk, type GuestVolume } from '../../volume/open-disk.ts';
import { parseFstab, type FstabEntry } from './tables.ts';

/** A file system of the guest and the volume that it lies on. */
export interface Mounted {
  readonly mountpoint: string;
  readonly volume: GuestVolume;
  readonly fileSystem: FilesByPath;
  /** Of btrfs, where it is not the default one. */
  readonly subvolume?: string;
}

export interface Found extends Mounted {
  /** Inside that file system. */
  readonly path: string;
}

export interface LinuxSystem {
  readonly root: Mounted;
  /** What its fstab mounts from disks and is not read, a line each. */
  readonly unread: readonly string[];
  /** The root and all that its fstab mounts and is read, the longest mountpoint first. */
  readonly mounted: readonly Mounted[];
  readonly fstab: readonly FstabEntry[];
  readonly name: string;
  readonly version: string;
  readonly warnings: readonly string[];
  /** Which file system holds a path, and under what name there. */
  find(path: string): Found;
}

const maxTextBytes = 4 * MiB;
const osReleasePaths = ['/etc/os-release', '/usr/lib/os-release'];
const initPaths = ['/sbin/init', '/usr/lib/systemd/systemd', '/init'];

/** @returns undefined where no volume holds the root of a Linux */
export function findLinux(guest: GuestDisk): LinuxSystem | undefined {
  const root = findRoot(guest);
  if (root === undefined) return undefined;
  const fstab = parseFstab(readText(root.fileSystem, '/etc/fstab') ?? '');
  const others = mountsOf(guest, root, fstab);
  const isMissed = ({ mountpoint }: FstabEntry): boolean => ['/boot', '/usr', '/etc'].includes(mountpoint);
  const warnings = others.unread.filter(isMissed).map(notRead);
  const mounted = [root, ...others.mounted].sort((a, b) => b.mountpoint.length - a.mountpoint.length);
  const release =
    osReleasePaths.map((path) => readText(root.fileSystem, path)).find((text) => text !== undefined) ?? '';
  return {
    root,
    mounted,
    unread: others.unread.filter(isOnDisk).map(notRead),
    fstab,
    name: fieldOf(release, 'PRETTY_NAME') ?? fieldOf(release, 'NAME') ?? 'Linux',
    version: fieldOf(release, 'VERSION_ID') ?? '',
    warnings,
    find(path) {
      const holder = mounted.find(
        ({ mountpoint }) => mountpoint === '/' || path === mountpoint || path.startsWith(`${mountpoint}/`),
      );
      if (holder === undefined || holder.mountpoint === '/') return { ...root, path };
      return { ...holder, path: path.slice(holder.mountpoint.length) || '/' };
    },
  };
}

/** What a fstab mounts besides the root, each at its path there. */
function mountsOf(
  guest: GuestDisk,
  root: Mounted,
  fstab: readonly FstabEntry[],
): { readonly mounted: readonly Mounted[]; readonly unread: readonly FstabEntry[] } {
  const mounted: Mounted[] = [];
  const unread: FstabEntry[] = [];
  for (const entry of fstab) {
    const { mountpoint, device, options } = entry;
    if (!mountpoint.startsWith('/') || mountpoint === '/') continue;
    const found = volumeNamed(guest, device, root);
    if (found?.fileSystem === undefined) unread.push(entry);
    else mounted.push({ ...selectSubvolume(found, found.fileSystem, subvolumeOption(options)), mountpoint });
  }
  return { mounted, unread };
}

/** Not what a kernel makes itself (proc, tmpfs), or has from elsewhere. */
function isOnDisk({ device }: FstabEntry): boolean {
  return /^(UUID|LABEL|PARTUUID|PARTLABEL)=|^\/dev\//i.test(device);
}

function notRead({ mountpoint, device }: FstabEntry): string {
  return `${mountpoint} is on ${device}, which is not read`;
}

/** A small text as latin1, in which a character is a byte. Undefined where there is none, or none that can be read. */
export function readText(fileSystem: FilesByPath, path: string): string | undefined {
  try {
    if (fileSystem.stat(path)?.type !== 'file') return undefined;
    return Buffer.from(fileSystem.readFile(path, maxTextBytes)).toString('latin1');
  } catch (error) {
    if (isRefusal(error)) return undefined;
    throw error;
  }
}

/** Names in a folder; none where it is not there or cannot be read. */
export function namesIn(fileSystem: FilesByPath, path: string): string[] {
  try {
    return fileSystem.stat(path)?.type === 'folder' ? fileSystem.list(path) : [];
  } catch (error) {
    if (isRefusal(error)) return [];
    throw error;
  }
}

function findRoot(guest: GuestDisk): Mounted | undefined {
  for (const volume of guest.volumes) {
    const { fileSystem } = volume;
    if (fileSystem === undefined) continue;
    if (isRoot(fileSystem)) return { mountpoint: '/', volume, fileSystem };
    for (const other of subvolumesOf(fileSystem)) {
      if (isRoot(other.files)) return { mountpoint: '/', volume, fileSystem: other.files, subvolume: other.name };
    }
  }
  return undefined;
}

function subvolumesOf(fileSystem: FilesByPath): readonly { readonly name: string; readonly files: FilesByPath }[] {
  try {
    return fileSystem.subvolumes();
  } catch (error) {
    if (isRefusal(error)) return [];
    throw error;
  }
}

function isRoot(fileSystem: FilesByPath): boolean {
  try {
    if (fileSystem.stat('/etc')?.type !== 'folder') return false;
    return [...osReleasePaths, ...initPaths].some((path) => fileSystem.stat(path)?.type === 'file');
  } catch (error) {
    if (isRefusal(error)) return false;
    throw error;
  }
}

function selectSubvolume(
  volume: GuestVolume,
  fileSystem: FilesByPath,
  subvolume: string | undefined,
): Omit<Mounted, 'mountpoint'> {
  const named = subvolume === undefined ? undefined : subvolumesOf(fileSystem).find(({ name }) => name === subvolume);
  return named === undefined ? { volume, fileSystem } : { volume, fileSystem: named.files, subvolume: named.name };
}

function subvolumeOption(options: string): string | undefined {
  return /(?:^|,)subvol=\/?([^,]+)/.exec(options)?.[1];
}

/** The volume that a fstab names: by UUID, label, partition, or as the kernel or the device mapper calls it. */
export function volumeNamed(guest: GuestDisk, device: string, root: Mounted): GuestVolume | undefined {
  const [, tag, value] = /^(UUID|LABEL|PARTUUID)="?([^"]*)"?$/i.exec(device) ?? [];
  const wanted = value?.toLowerCase();
  switch (tag?.toUpperCase()) {
    case 'UUID':
      if (root.fileSystem.uuid === wanted) return root.volume;
      return guest.volumes.find(({ fileSystem }) => fileSystem?.uuid.toLowerCase() === wanted);
    case 'LABEL':
      return guest.volumes.find(({ fileSystem }) => fileSystem?.label === value);
    case 'PARTUUID':
      return guest.volumes.find(({ partition }) => partition?.guid === wanted);
    default:
      break;
  }
  const logical = guest.volumes.find(({ logical: names }) => {
    if (names === undefined) return false;
    return device === `/dev/mapper/${mapperName(names)}` || device === `/dev/${names.group}/${names.name}`;
  });
  if (logical !== undefined) return logical;
  const number = /^\/dev\/(?:[a-z]+|nvme\dn1p)(\d+)$/.exec(device)?.[1];
  return number === undefined ? undefined : guest.volumes.find(({ partition }) => partition?.number === Number(number));
}

/** As the device mapper and GRUB write it: dashes are doubled. */
export function mapperName({ group, name }: { readonly group: string; readonly name: string }): string {
  return `${group.replaceAll('-', '--')}-${name.replaceAll('-', '--')}`;
}

function fieldOf(release: string, name: string): string | undefined {
  const value = new RegExp(`^${name}=(.*)$`, 'm').exec(release)?.[1]?.trim();
  return value === undefined ? undefined : Buffer.from(value.replaceAll(/^["']|["']$/g, ''), 'latin1').toString('utf8');
}
