/** A program that writes to a disk while its mount is killed: what was acknowledged, and what may be there. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { KiB } from '../../src/base/units.ts';

const noticesWithinMs = 2000;
const writer = path.join(import.meta.dirname, 'acknowledged-writes-script.ts');

export interface AcknowledgedWrite {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly fill: number;
}

/**
 * Runs the writer, and `kill` meanwhile. Where the kernel itself writes to a complete disk, the writer does not notice, and is ended.
 * @returns what it said was written, and what it was writing when it failed
 */
export async function writeUntilKilled(
  { file, sizeBytes }: { readonly file: string; readonly sizeBytes: number },
  seed: string,
  kill: () => Promise<void>,
): Promise<{ complete: AcknowledgedWrite[]; pending: AcknowledgedWrite | undefined }> {
  const child = spawn(process.execPath, [writer, file, seed, String(sizeBytes), String(200 * KiB)], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let text = '';
  child.stdout.on('data', (data: Buffer) => (text += data.toString()));
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  while (!text.includes('\n')) await sleep(5);
  await kill();
  const end = setTimeout(() => child.kill('SIGKILL'), noticesWithinMs);
  await ended;
  clearTimeout(end);
  const lines = text.split('\n').filter((line) => line.endsWith(';'));
  const parsed = lines.map((line) => {
    const [kind, offset, lengthBytes, fill] = line.slice(0, -1).split(' ');
    return { kind, offset: Number(offset), lengthBytes: Number(lengthBytes), fill: Number(fill) };
  });
  const last = parsed.at(-1);
  return {
    complete: parsed.filter((line) => line.kind === 'done'),
    pending: last?.kind === 'begin' ? last : undefined,
  };
}
