/** An incremental image of a mounted disk holds what a reader of the mount reads, whatever has happened to the disk. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { expect, it, onTestFailed } from 'vitest';
import { seededTest, soak } from '../seeded.ts';
import { placeForTest } from './mounted.ts';

const script = path.join(import.meta.dirname, 'incremental-model-script.ts');
const rounds = soak ? 100 : 1;
const steps = soak ? 100 : 30;
const endsWithinMs = soak ? 1_200_000 : 300_000;

it.each(Array.from({ length: rounds }, (_, round) => round))(
  'written, trimmed, grown, cut, filled, finalized, mounted anew, restored, reconfigured and consolidated (round %i)',
  { timeout: endsWithinMs + 10_000 },
  async (round) => {
    const { seed } = seededTest(`incremental of a mounted disk ${round}`);
    const place = placeForTest();
    const args = [script, place.folder, place.mountpoint, place.temporary.path, seed, String(steps)];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: endsWithinMs });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (said += data.toString()));
    onTestFailed(() => console.error(said.slice(-4000)));
    const status = await new Promise((resolve) => child.on('close', resolve));
    expect(status).toBe(0);
    expect(said.trimEnd().split('\n').at(-1)).toMatch(new RegExp(`^${steps} steps, \\d+ images$`));
  },
);
