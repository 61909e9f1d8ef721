/**
 * The process that serves a mount, started as `veneer mount` starts it, by this process: a start of the tool less. What the tool does before
 * and after is for tests of its own (conformance/life.test.ts, cli/background.test.ts), and for a soak.
 */
import { spawn } from 'node:child_process';
import type { Writable } from 'node:stream';
import { servingIn } from '../../src/cli/background.ts';
import { veneerPath } from '../cli/veneer.ts';

const [readyFd, keysFd] = [3, 4];
/** They are read by the tool, and handed over. */
const optionsOfKeys = /^--(key|passphrase|ask-passphrase)/;

/** Whether options are such that nothing but the serving process looks at them. */
export function mayStartServer(options: readonly string[]): boolean {
  return !options.some((option) => optionsOfKeys.test(option));
}

/** Resolves when it serves. @throws the error for which it does not */
export async function startServer(folder: string, mountpoint: string, options: readonly string[]): Promise<void> {
  const handedOver = ['--foreground', '--ready-fd', String(readyFd), '--keys-fd', String(keysFd)];
  const child = spawn(process.execPath, [veneerPath, 'mount', ...options, folder, mountpoint, ...handedOver], {
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
  });
  const keys = child.stdio[keysFd] as Writable;
  keys.on('error', () => undefined);
  keys.end('[]');
  const text = await new Promise<string>((resolve, reject) => {
    let heard = '';
    child.on('error', reject);
    child.stdio[readyFd]?.on('data', (data: Buffer) => (heard += data.toString()));
    child.stdio[readyFd]?.on('end', () => resolve(heard));
  });
  child.unref();
  if (text === '') throw new Error(`the process that should serve ${mountpoint} ended without a word`);
  servingIn(text);
}
