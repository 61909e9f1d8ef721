/** Other file systems that are mounted below the folder: they may not answer, and the main thread touches nothing of them. */
import * as fs from '../../base/fs.ts';
import { mountPoints } from '../../base/mount-points.ts';

export class OtherFileSystems {
  readonly #points: readonly string[];

  /** As they are now. */
  constructor(folder: string) {
    this.#points = mountPoints().filter((point) => point.startsWith(folder === '/' ? '/' : `${folder}/`));
  }

  /** @param fd of a file, which is not touched */
  have(fd: number): boolean {
    if (this.#points.length === 0) return false;
    const path = fs.readlinkSync(`/proc/self/fd/${fd}`);
    return this.#points.some((point) => path === point || path.startsWith(`${point}/`));
  }
}
