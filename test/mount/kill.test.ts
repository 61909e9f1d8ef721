/**
 * The process that serves is killed under load, while it fills the disk or does not: after the next mount every write that was acknowledged is
 * there. Also those that the kernel took for a complete disk after the process had died.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { KiB } from '../../src/base/units.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { seededTest, soak } from '../seeded.ts';
import { diskBytes, readPart, writeGuest } from './guest-disk.ts';
import { placeForTest } from './mounted.ts';

const kills = soak ? 200 : 4;
const noticesWithinMs = 2000;
const writer = path.join(import.meta.dirname, 'acknowledged-writes-script.ts');

interface Write {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly fill: number;
}

it(`${kills} kills at random moments lose nothing that was acknowledged`, { timeout: kills * 20_000 }, async () => {
  const random = seededTest('kills under load');
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  createPluginFile(place.behind('vm.spi'), place.behind('vm.raw'));
  let expected = await readPart(raw, 0, diskBytes);
  let cutOvers = 0;
  for (let round = 0; round < kills; round++) {
    const filling = round % 2 === 1 ? ['--fill', '--fill-rate', '24M'] : [];
    await place.mount('--transport', round % 4 === 3 ? 'fuse-native' : 'kernel', ...filling);
    const acknowledged = await writeUntilKilled(
      place.under('vm.raw'),
      `round ${round} ${random.below(2 ** 40)}`,
      async () => {
        await sleep(20 + random.below(400));
        await place.kill();
      },
    );
    for (const { offset, lengthBytes, fill } of acknowledged.complete)
      expected.fill(fill, offset, offset + lengthBytes);
    await place.mount();
    const found = await readPart(place.under('vm.raw'), 0, diskBytes);
    // Of the write that was under way, any part may be there.
    const { pending } = acknowledged;
    if (pending !== undefined)
      found.copy(expected, pending.offset, pending.offset, pending.offset + pending.lengthBytes);
    expect(found.equals(expected), `after kill ${round}, ${acknowledged.complete.length} writes`).toBe(true);
    const isComplete = (await place.status()).fills?.some((fill) => fill.state === 'complete') === true;
    await place.unmount();
    if (!isComplete) continue;
    // It would stay so: begin anew.
    cutOvers++;
    for (const name of ['vm.raw.replacement', 'vm.raw.replacement-map']) fs.rmSync(place.behind(name));
    expected = await readPart(raw, 0, diskBytes);
  }
  console.info(`${kills} kills, ${cutOvers} fills came to their end meanwhile`);
});

/**
 * Runs the writer, and `kill` meanwhile. Where the kernel itself writes to a complete disk, the writer does not notice, and is ended.
 * @returns what it said was written, and what it was writing when it failed
 */
async function writeUntilKilled(
  file: string,
  seed: string,
  kill: () => Promise<void>,
): Promise<{ complete: Write[]; pending: Write | undefined }> {
  const child = spawn(process.execPath, [writer, file, seed, String(diskBytes), String(200 * KiB)], {
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
