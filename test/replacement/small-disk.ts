/** A file system of its own, with little room, for files that are to meet its end. Unmounted when the test ends, however it ends. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { MiB } from '../../src/base/units.ts';
import { patience } from '../patience.ts';
import { TempFolder } from '../temp-folder.ts';

export const smallDisks = ['tmpfs', 'ext4'] as const;
export type SmallDiskKind = (typeof smallDisks)[number];

const letsGoWithinMs = 5000;
const mounted = new Set<SmallDisk>();

process.on('exit', () => {
  for (const disk of mounted) disk[Symbol.dispose]();
});

export class SmallDisk implements Disposable {
  readonly #folder = new TempFolder();
  /** Where it is mounted. */
  readonly path: string;

  /** @throws Error with mount's own words */
  constructor(kind: SmallDiskKind, sizeBytes: number) {
    this.path = this.#folder.file('mounted');
    fs.mkdirSync(this.path);
    try {
      if (kind === 'tmpfs') {
        run('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'veneer-test', this.path]);
      } else {
        const image = this.#folder.write('disk.raw', '');
        fs.truncateSync(image, sizeBytes);
        run('mkfs.ext4', ['-q', '-F', '-m', '0', image]);
        run('mount', ['-o', 'loop', image, this.path]);
      }
    } catch (error) {
      this.#folder.remove();
      throw error;
    }
    mounted.add(this);
  }

  /** Leaves so much room, by a file that takes the rest. Returns what frees it again. */
  leave(roomBytes: number): () => void {
    const ballast = path.join(this.path, 'ballast');
    const { bavail, bsize } = fs.statfsSync(this.path);
    fs.writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - roomBytes), 0xba), { flush: true });
    return () => fs.rmSync(ballast);
  }

  /** Idempotent. */
  [Symbol.dispose](): void {
    if (mounted.delete(this)) unmount(this.path);
    this.#folder.remove();
  }
}

/** The kernel lets go of a file that it read by itself (passthrough) a moment after the server's process has ended. */
function unmount(mountpoint: string): void {
  for (const endsBy = performance.now() + patience(letsGoWithinMs); ;) {
    try {
      run('umount', [mountpoint]);
      return;
    } catch (error) {
      if (!/target is busy/.test(String(error)) || performance.now() > endsBy) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    }
  }
}

/** Why none can be mounted here; undefined where one can. */
export function whyNoSmallDisk(kind: SmallDiskKind): string | undefined {
  try {
    using disk = new SmallDisk(kind, 8 * MiB);
    return fs.existsSync(disk.path) ? undefined : `${kind} is not there`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function run(command: string, args: readonly string[]): void {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  if (result.error !== undefined) throw new Error(`${command} cannot be run: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`${command}: ${result.stderr.trim()}`);
}
