/**
 * The files of a guest's disk by the paths that the guest has for them: `/var/log` wherever its fstab puts that, `D:\backup` on whatever volume its
 * registry calls D:. And by volume, for disks that hold no system.
 *
 * Links are followed within the guest, a limited number of times: none leads anywhere else.
 */
import { UsageError } from '../base/errors.ts';
import type { Disk } from '../disk/disk.ts';
import type { FileSystem, NodeId, NodeStat } from '../filesystem/file-system.ts';
import { findLinux } from '../guest/linux/system.ts';
import { driveLetters } from '../guest/windows/drive-letters.ts';
import { isRefusal, openGuestDisk, type GuestDisk, type GuestVolume } from '../volume/open-disk.ts';

/** A volume of the disk, and where the guest has it. */
export interface BrowsedVolume {
  /** For people, and for `volume` below: `partition 2`, `LVM vg/root`. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Undefined where it is not read: `problem` says why. */
  readonly fileSystem: FileSystem | undefined;
  readonly problem: string | undefined;
  /** `/`, `/home`, `C:`. */
  readonly mountpoints: readonly string[];
}

/** A file, folder or link of the guest. */
export interface FoundNode {
  readonly fileSystem: FileSystem;
  readonly node: NodeId;
  readonly stat: NodeStat;
  /** As the guest would name it. */
  readonly path: string;
  /** What is mounted where it was looked for. */
  readonly mounts: readonly Mount[];
}

/** A volume at a path of the guest's. */
export interface Mount {
  readonly at: string;
  readonly volume: GuestVolume;
  readonly fileSystem: FileSystem;
  readonly root: NodeId;
}

/** Folders on the way to a node, the root of all first. */
type Way = FoundNode[];

const maxLinks = 40;
const maxParts = 4096;
const letterPattern = /^(?:\\\?\?\\)?([A-Za-z]:)(?=[\\/]|$)/;

export class GuestTree {
  readonly volumes: readonly BrowsedVolume[];
  readonly warnings: readonly string[];
  readonly #mounts: readonly Mount[];
  readonly #guest: GuestDisk;

  /** @param disk stays the caller's. @throws as openGuestDisk */
  constructor(disk: Disk) {
    this.#guest = openGuestDisk(disk);
    const { volumes } = this.#guest;
    const warnings = [...this.#guest.warnings, ...volumes.flatMap(({ fileSystem }) => fileSystem?.warnings ?? [])];
    this.#mounts = mountsOf(this.#guest, warnings);
    this.warnings = warnings;
    this.volumes = volumes.map((volume) => ({
      name: volume.name,
      sizeBytes: volume.disk.sizeBytes,
      fileSystem: volume.fileSystem?.volume,
      problem: volume.fileSystem === undefined ? (volume.problem ?? 'holds no file system that is read') : undefined,
      mountpoints: this.#mounts.filter((mount) => mount.volume === volume).map(({ at }) => at),
    }));
  }

  /**
   * @param volume its name, number, label or UUID: the path begins at its root then
   * @param follow whether a link at the end is followed
   * @throws UsageError where nothing has that path, with what there is
   */
  find(
    path: string,
    { volume, follow = true }: { readonly volume?: string; readonly follow?: boolean } = {},
  ): FoundNode {
    const mounts = volume === undefined ? this.#mounts : [this.#volumeNamed(volume)];
    return new Walk(mounts.length > 0 ? mounts : [this.#onlyVolume()], path).find(follow);
  }

  /** Where paths begin: of a Windows each volume that has a letter, once; else the root. */
  roots(volume?: string): FoundNode[] {
    const first = this.find('/', volume === undefined ? {} : { volume });
    const others = volume === undefined ? this.#mounts.filter(({ at }) => /^[A-Z]:$/.test(at)) : [];
    const roots = [first, ...others.map((mount) => rootOf(mount, this.#mounts))];
    return roots.filter((one, index) => roots.findIndex(({ fileSystem }) => fileSystem === one.fileSystem) === index);
  }

  /**
   * What a folder holds, and what is mounted on names of it is that.
   * @param complain of what of it cannot be read: the others are there
   * @throws UsageError where it is no folder; FormatError, UnsupportedError where it cannot be read
   */
  list(folder: FoundNode, complain: (text: string) => void): { readonly name: string; readonly found: FoundNode }[] {
    if (folder.stat.type !== 'folder') throw new UsageError(`${folder.path}: is no folder`);
    return Array.from(folder.fileSystem.entries(folder.node)).flatMap(({ name, node }) => {
      try {
        return [{ name, found: below(folder, name, node) }];
      } catch (error) {
        if (!isRefusal(error)) throw error;
        complain(`${pathIn(folder.path, name)}: is not read: ${error.message}`);
        return [];
      }
    });
  }

  #volumeNamed(name: string): Mount {
    const wanted = name.toLowerCase();
    const [volume, ...others] = this.#guest.volumes.filter((one) => {
      const { partition, logical, fileSystem } = one;
      const names = [one.name, fileSystem?.label, fileSystem?.uuid, logical && `${logical.group}/${logical.name}`];
      const numbers = partition === undefined ? [] : [String(partition.number)];
      return [...names, ...numbers].some((each) => each !== undefined && each !== '' && each.toLowerCase() === wanted);
    });
    if (volume === undefined) throw new UsageError(`--volume ${name}: is none of the disk's; ${this.#told()}`);
    if (others.length > 0) {
      const names = [volume, ...others].map((one) => one.name).join(', ');
      throw new UsageError(`--volume ${name}: may be ${names}; give the name or the UUID of one`);
    }
    return rootMount(volume);
  }

  #onlyVolume(): Mount {
    const [volume, ...others] = this.#guest.volumes.filter(({ fileSystem }) => fileSystem !== undefined);
    if (volume === undefined) throw new UsageError(`no volume of the disk is read: ${this.#told()}`);
    if (others.length > 0)
      throw new UsageError(
        `the disk holds no system that says where a path lies; name a volume with --volume: ${this.#told()}`,
      );
    return rootMount(volume);
  }

  #told(): string {
    const all = this.volumes.map(({ name, fileSystem, problem }) => `${name} (${fileSystem?.kind ?? problem ?? ''})`);
    return all.length === 0 ? 'it has none' : all.join(', ');
  }
}

function rootMount(volume: GuestVolume): Mount {
  const { fileSystem, name, problem } = volume;
  if (fileSystem === undefined) throw new UsageError(`${name}: ${problem ?? 'holds no file system that is read'}`);
  return { at: '/', volume, fileSystem: fileSystem.volume, root: fileSystem.root };
}

/** As the system on the disk has them. One that cannot be read is said, and its volumes are read by their names all the same. */
function mountsOf(guest: GuestDisk, warnings: string[]): Mount[] {
  const linux = findLinux(guest);
  warnings.push(...(linux?.unread ?? []));
  if (linux !== undefined)
    return linux.mounted.map(({ mountpoint, volume, fileSystem }) => ({
      ...{ at: mountpoint, volume, fileSystem: fileSystem.volume, root: fileSystem.root },
    }));
  try {
    return driveLetters(guest).flatMap(({ letter, volume }) =>
      volume.fileSystem === undefined ? [] : [{ ...rootMount(volume), at: letter }],
    );
  } catch (error) {
    if (!isRefusal(error)) throw error;
    warnings.push(`drive letters are not known: ${error.message}`);
    return [];
  }
}

/** From the root of all to a node, over mountpoints and links. */
class Walk {
  readonly #mounts: readonly Mount[];
  /** Paths have letters and either slash. */
  readonly #isWindows: boolean;
  readonly #asked: string;
  #links = 0;

  constructor(mounts: readonly Mount[], asked: string) {
    this.#mounts = mounts;
    this.#isWindows = mounts.every(({ fileSystem }) => fileSystem.paths === 'windows');
    this.#asked = asked;
  }

  find(follow: boolean): FoundNode {
    const start = this.#startOf(this.#asked);
    const way: Way = start.way;
    const pending = this.#partsOf(start.rest);
    for (let part = pending.shift(); part !== undefined; part = pending.shift()) {
      if (part === '..') {
        if (way.length > 1) way.pop();
        continue;
      }
      const next = this.#step(this.#last(way), part);
      if (next.stat.type !== 'link' || (pending.length === 0 && !follow)) {
        way.push(next);
        continue;
      }
      if (++this.#links > maxLinks) throw this.#wrong(`${next.path} leads through more than ${maxLinks} links`);
      const target = this.#startOf(next.fileSystem.readLink(next.node), way);
      way.splice(0, way.length, ...target.way);
      pending.unshift(...this.#partsOf(target.rest));
      if (pending.length > maxParts) throw this.#wrong('leads through links that grow');
    }
    return this.#last(way);
  }

  #step(folder: FoundNode, name: string): FoundNode {
    const { fileSystem, node, stat } = folder;
    if (stat.type !== 'folder') throw this.#wrong(`${folder.path} is no folder`);
    const found = fileSystem.lookup(node, name);
    if (found === undefined) throw this.#wrong(`${folder.path} has no ${name}`);
    return below(folder, name, found);
  }

  /** Where a path begins: at a root of its own, or where it is seen from. */
  #startOf(path: string, from: Way = []): { readonly way: Way; readonly rest: string } {
    const letter = this.#isWindows ? letterPattern.exec(path) : null;
    if (letter !== null) {
      const at = (letter[1] ?? '').toUpperCase();
      const mount = this.#mounts.find((one) => one.at === at);
      if (mount === undefined) throw this.#wrong(`no volume of the disk is ${at}`);
      return { way: [rootOf(mount, this.#mounts)], rest: path.slice(letter[0].length) };
    }
    const isRelative = from.length > 0 && !path.startsWith('/') && !(this.#isWindows && path.startsWith('\\'));
    if (isRelative) return { way: [...from], rest: path };
    const [first] = from;
    const root = first ?? this.#rootMount();
    return { way: ['node' in root ? root : rootOf(root, this.#mounts)], rest: path };
  }

  #rootMount(): Mount {
    const root = this.#mounts.find(({ at }) => at === '/') ?? this.#mounts[0];
    if (root === undefined) throw this.#wrong('there is no volume');
    return root;
  }

  #partsOf(path: string): string[] {
    const parts = path.split(this.#isWindows ? /[\\/]/ : '/').filter((part) => part !== '' && part !== '.');
    if (parts.length > maxParts) throw this.#wrong(`has more than ${maxParts} names`);
    return parts;
  }

  #last(way: Way): FoundNode {
    return way.at(-1) ?? rootOf(this.#rootMount(), this.#mounts);
  }

  #wrong(detail: string): UsageError {
    return new UsageError(`${this.#asked}: ${detail}`);
  }
}

/** Another volume's root, where one is mounted there. */
function below({ mounts, path: folder, fileSystem }: FoundNode, name: string, node: NodeId): FoundNode {
  const path = pathIn(folder, name);
  const mount = mounts.find(({ at }) => at === path);
  return mount === undefined ? { fileSystem, node, stat: fileSystem.stat(node), path, mounts } : rootOf(mount, mounts);
}

function pathIn(folder: string, name: string): string {
  const separator = /^[A-Z]:/.test(folder) ? '\\' : '/';
  return folder.endsWith('/') ? folder + name : folder + separator + name;
}

function rootOf({ at, fileSystem, root }: Mount, mounts: readonly Mount[]): FoundNode {
  return { fileSystem, node: root, stat: fileSystem.stat(root), path: at, mounts };
}
