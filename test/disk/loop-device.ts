/** A raw file as a block device, where the machine has loop devices. */
import { spawnSync } from 'node:child_process';
import { KiB } from '../../src/base/units.ts';
import { TempFolder } from '../temp-folder.ts';

const attached = new Set<string>();

process.on('exit', () => {
  for (const device of attached) spawnSync('losetup', ['--detach', device]);
});

export interface LoopDevice extends Disposable {
  /** `/dev/loop…` */
  readonly path: string;
  /** Idempotent. */
  detach(): void;
}

/** @throws Error with losetup's own words */
export function attachLoopDevice(filePath: string, options: readonly string[] = ['--read-only']): LoopDevice {
  const result = spawnSync('losetup', ['--find', '--show', ...options, filePath], { encoding: 'utf8' });
  if (result.error !== undefined) throw new Error(`losetup cannot be run: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`losetup: ${result.stderr.trim()}`);
  const path = result.stdout.trim();
  attached.add(path);
  const detach = (): void => {
    if (attached.delete(path)) spawnSync('losetup', ['--detach', path]);
  };
  return { path, detach, [Symbol.dispose]: detach };
}

/** Why there are no loop devices here; undefined where there are. */
export function whyNoLoopDevices(): string | undefined {
  using folder = new TempFolder();
  try {
    attachLoopDevice(folder.write('probe.raw', Buffer.alloc(4 * KiB))).detach();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
