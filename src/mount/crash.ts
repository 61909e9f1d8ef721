/**
 * The last resort of a process that serves a mount: when its main thread fails in a way that nobody expected, the mount ends, and at once.
 * Node itself would wait for worker threads that wait for the kernel, while callers wait for them.
 *
 * 1. the log and standard error say why
 * 2. the connection is aborted: whoever waits for an answer gets an error
 * 3. the mount is taken out of the tree, so that nothing dead is left there
 * 4. the process ends with all its threads. What was acknowledged is in files: it is as after a kill.
 */
import { spawnSync } from 'node:child_process';
import { commandOf } from '../base/byte-arguments.ts';
import * as fs from '../base/fs.ts';
import { printable } from '../base/printable.ts';
import { inSources } from '../base/source-stack.ts';
import { connectionOf } from '../mounts/mountpoint.ts';
import type { Log } from '../base/log.ts';
import { exitNow, unmountAsRoot } from '../base/system-calls.ts';

const connections = '/sys/fs/fuse/connections';
const unmountsWithinMs = 5000;

/** @returns what lets go of the process again: for a mount that has ended as it should */
export function endOnCrash(mountpoint: string, log: Log): () => void {
  const crashed = (error: unknown): void => {
    try {
      const stack = error instanceof Error ? inSources(error.stack ?? error.message) : String(error);
      attempt(() => log('error', `the mount ends, its main thread has failed: ${stack}`, {}));
      const told = `veneer: ${mountpoint}: the mount ends, its main thread has failed: ${stack}`;
      attempt(() => process.stderr.write(`${told.split('\n').map(printable).join('\n')}\n`));
      attempt(() => abort(mountpoint));
      attempt(() => takeAway(mountpoint));
    } finally {
      exitNow(1);
    }
  };
  // Promises that fail unheard come here too.
  process.on('uncaughtException', crashed);
  return () => process.off('uncaughtException', crashed);
}

function attempt(step: () => void): void {
  try {
    step();
  } catch {
    // The next step does not need it.
  }
}

function takeAway(mountpoint: string): void {
  if (process.getuid?.() === 0) unmountAsRoot(mountpoint, true);
  else {
    const { program, args } = commandOf('fusermount3', ['-u', '-z', '--', mountpoint]);
    spawnSync(program, args, { timeout: unmountsWithinMs });
  }
}

/** Where the kernel shows its connections; elsewhere the end of the process has the same effect. */
function abort(mountpoint: string): void {
  const connection = connectionOf(mountpoint);
  if (connection !== undefined) fs.writeFileSync(`${connections}/${connection}/abort`, '1');
}
