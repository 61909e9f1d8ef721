/** The numbers of a folder's entries, as a listing tells them with no look at each: the same that each has when it is looked at. */
import * as fs from '../base/fs.ts';
import { systemErrorCode } from '../base/errors.ts';
import type { FileIdentity, InodeNumbers } from './inode-numbers.ts';
import { MountPoints } from './mount-points.ts';
import { pathIfTold, type Place } from './place.ts';

/** Of statfs(2): file systems in which a folder may be the top of a volume with numbers of its own. */
const volumesInside: ReadonlySet<number> = new Set([0x9123683e /* btrfs */, 0xca451a4e /* bcachefs */]);
/** Of struct linux_dirent64. */
const DT_DIR = 4;

/** @param type of struct linux_dirent64 @param inode as the folder tells it */
export type NumberOfEntry = (name: string, type: number, inode: bigint) => bigint;

/** Undefined where nothing answers: it is gone, or what is mounted there is dead. */
function identityAt(at: string): FileIdentity | undefined {
  try {
    return fs.lstatSync(at, { bigint: true });
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
}

export class ListedNumbers {
  readonly #numbers: InodeNumbers;
  readonly #points = new MountPoints();
  readonly #hasVolumes = new Map<bigint, boolean>();

  constructor(numbers: InodeNumbers) {
    this.#numbers = numbers;
  }

  /** @param fd of the folder, which is being listed */
  of(folder: Place, fd: number): NumberOfEntry {
    const { dev } = fs.fstatSync(fd, { bigint: true });
    const told = pathIfTold(folder);
    // Where the path cannot be told, anything in the folder may be a mount point.
    const points = told === undefined ? undefined : this.#points.namesIn(told);
    const hasVolumes = this.#mayHaveVolumes(dev, folder);
    return (name, type, ino) => {
      const mayBeTop = hasVolumes && type === DT_DIR;
      const isElsewhere = (points === undefined || points.has(name) || mayBeTop) && name !== '.' && name !== '..';
      if (!isElsewhere) return this.#numbers.of({ dev, ino });
      return this.#numbers.of(identityAt(`${folder.at}/${name}`) ?? { dev, ino });
    };
  }

  close(): void {
    this.#points.close();
  }

  #mayHaveVolumes(device: bigint, folder: Place): boolean {
    let has = this.#hasVolumes.get(device);
    if (has === undefined) {
      has = volumesInside.has(fs.statfsSync(folder.at).type);
      this.#hasVolumes.set(device, has);
    }
    return has;
  }
}
