/**
 * A source that does not answer: images on a mount whose server is stopped, so that reads of them block in the system until it goes on. Its
 * own disks get errors in time, other disks notice nothing, and what was given up changes nothing when it comes back.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import type { FillStatus } from '../../src/fill/fill-status.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { veneer, veneerOk } from '../cli/veneer.ts';
import { patience } from '../patience.ts';
import { Seeded, seededTest, soak } from '../seeded.ts';
import { eventually, placeForTest, type MountPlace } from './mounted.ts';

const diskBytes = 8 * MiB;
const unitBytes = 64 * KiB;
const timeoutSeconds = 1;
/** The time-out, what is looked at between, and a machine that is busy. */
const failsWithinMs = timeoutSeconds * 1000 + patience(3000);
const threadsOfReader = 12;
const modelSteps = soak ? 3000 : 24;

/** Reads blocks of a file from many threads at once, each of its own; prints what became of each. */
const readerScript = `
import os, sys, threading, mmap, time
name, seed = sys.argv[1], int(sys.argv[2])
results = []
def read(index):
    fd = os.open(name, os.O_RDONLY | os.O_DIRECT)
    begun = time.time()
    try:
        os.preadv(fd, [mmap.mmap(-1, 4096)], (seed + index * 9) * 65536)
        results.append('read')
    except OSError as error:
        results.append('%d %.3f' % (error.errno, time.time() - begun))
    os.close(fd)
threads = [threading.Thread(target=read, args=(index,)) for index in range(${threadsOfReader})]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print('\\n'.join(results))
`;

interface Arranged {
  /** Serves the images of the disk that is to be stuck. */
  readonly source: MountPlace;
  /** Shows `stuck.raw` and `other.raw`. */
  readonly place: MountPlace;
  readonly stuck: Buffer;
  readonly other: Buffer;
  readonly stop: () => void;
  readonly go: () => void;
}

async function arrange(options: readonly string[] = []): Promise<Arranged> {
  const source = placeForTest();
  const place = placeForTest();
  const [stuck, other] = ['stuck', 'other'].map((name) => new Seeded(name).bytes(diskBytes)) as [Buffer, Buffer];
  const raw = { sourceFormat: 'raw' };
  await createImage(source.temporary.write('stuck', stuck), source.behind('stuck.spf'), raw);
  await createImage(place.temporary.write('other', other), place.behind('other.spf'), raw);
  await source.mount('--transport', 'kernel');
  // By another process: this one touches no mount but asynchronously.
  await veneerOk('plugin', 'create', source.under('stuck.spf'), place.behind('stuck.raw'));
  createPluginFile(place.behind('other.spf'), place.behind('other.raw'));
  const timeout = ['--source-timeout', String(timeoutSeconds)];
  await place.mount('--transport', 'kernel', '--allow-path', source.mountpoint, ...timeout, ...options);
  const [server = 0] = source.servers();
  const go = (): void => void process.kill(server, 'SIGCONT');
  onTestFinished(go);
  return { source, place, stuck, other, stop: () => void process.kill(server, 'SIGSTOP'), go };
}

/** Reads that the stopped server is to answer, in a process of their own. */
function startReader(file: string, seed: number): { results: Promise<string[]> } {
  const child = spawn('python3', ['-c', readerScript, file, String(seed)], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let text = '';
  child.stdout.on('data', (data: Buffer) => (text += data.toString()));
  const results = new Promise<string[]>((resolve) => child.on('close', () => resolve(text.trim().split('\n'))));
  return { results };
}

async function readAt(file: string, offset: number, length: number): Promise<Buffer> {
  const handle = await fs.promises.open(file, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
  try {
    const bytes = Buffer.alloc(length);
    const { bytesRead } = await handle.read(bytes, 0, length, offset);
    return bytes.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

async function writeAt(file: string, bytes: Uint8Array, offset: number): Promise<void> {
  const handle = await fs.promises.open(file, 'r+');
  try {
    await handle.write(bytes, 0, bytes.length, offset);
  } finally {
    await handle.close();
  }
}

async function timed<T>(action: Promise<T>): Promise<{ ms: number; result: T }> {
  const startMs = performance.now();
  const result = await action;
  return { ms: performance.now() - startMs, result };
}

it(
  'costs its own disk an error in time, and another disk nothing',
  async () => {
    const { place, source, stuck, other, stop, go } = await arrange();
    const [stuckFile, otherFile] = [place.under('stuck.raw'), place.under('other.raw')];
    // Its image is open, and unit 3 has been written.
    await writeAt(stuckFile, Buffer.from('first'), 3 * unitBytes + 100);
    expect(await readAt(stuckFile, 0, 4 * KiB)).toEqual(stuck.subarray(0, 4 * KiB));
    stop();
    const readers = [startReader(stuckFile, 20), startReader(stuckFile, 21)];
    await sleep(500);
    // The other disk is read to its end meanwhile, though its image has not been open.
    const whole = await timed(fs.promises.readFile(otherFile));
    expect(whole.result.equals(other)).toBe(true);
    expect(whole.ms).toBeLessThan(patience(3000));
    // What is present is written and read on.
    await writeAt(stuckFile, Buffer.from('second'), 3 * unitBytes + 200);
    expect((await readAt(stuckFile, 3 * unitBytes, 4 * KiB)).subarray(200, 206).toString()).toBe('second');
    // What is not waits for the image, and fails.
    const refused = await timed(
      writeAt(stuckFile, Buffer.from('never'), 100 * unitBytes + 7).catch((error: unknown) => error),
    );
    expect(refused.result).toMatchObject({ code: 'EIO' });
    expect(refused.ms).toBeLessThan(failsWithinMs);
    const status = await veneerOk('status', place.mountpoint);
    expect(status).toMatch(
      new RegExp(`stuck\\.raw: [^]*source ${source.mountpoint}: does not answer since \\d+ s; \\d+ threads? waits?`),
    );
    for (const { results } of readers) {
      const ended = await results;
      expect(ended).toHaveLength(threadsOfReader);
      for (const one of ended) {
        const [errno, seconds] = one.split(' ');
        expect(errno, ended.join(', ')).toBe('5');
        expect(Number(seconds) * 1000).toBeLessThan(failsWithinMs);
      }
    }
    await place.expectComplaint(/source .* does not answer since/);
    expect(place.complaints().filter((line) => line.includes('does not answer'))).toHaveLength(1);
    go();
    await eventually(async () => {
      expect((await place.status()).sources).toEqual([]);
      const whole = await fs.promises.readFile(stuckFile);
      const wanted = Buffer.from(stuck);
      wanted.write('first', 3 * unitBytes + 100);
      wanted.write('second', 3 * unitBytes + 200);
      expect(whole.equals(wanted)).toBe(true);
    }, patience(10_000));
    // Those that were beside the stuck ones end.
    const { serving } = await place.status();
    await eventually(
      async () => expect((await place.status()).serving?.workers).toBeLessThanOrEqual(serving?.workers ?? 0),
      patience(15_000),
    );
  },
  patience(60_000),
);

it(
  'a disk whose image was never open fails in time as well, and opens once its source goes on',
  async () => {
    const { place, stuck, other, stop, go } = await arrange();
    stop();
    const first = await timed(readAt(place.under('stuck.raw'), 0, 4 * KiB).catch((error: unknown) => error));
    expect(first.result).toMatchObject({ code: 'EIO' });
    expect(first.ms).toBeLessThan(failsWithinMs);
    expect((await fs.promises.readFile(place.under('other.raw'))).equals(other)).toBe(true);
    expect(await fs.promises.readdir(place.mountpoint)).toContain('stuck.raw');
    go();
    await eventually(
      async () => expect((await fs.promises.readFile(place.under('stuck.raw'))).equals(stuck)).toBe(true),
      patience(10_000),
    );
  },
  patience(60_000),
);

it.each([[[]], [['--lazy']]])(
  '%j unmount ends the mount while threads are stuck',
  async (options) => {
    const { place, stop, go } = await arrange();
    stop();
    const reader = startReader(place.under('stuck.raw'), 20);
    await reader.results;
    const ended = await timed(veneer('unmount', ...options, place.mountpoint));
    expect(ended.result).toMatchObject({ status: 0 });
    expect(ended.ms).toBeLessThan(patience(5000));
    expect(place.isMounted).toBe(false);
    await eventually(() => expect(place.servers()).toEqual([]), patience(5000));
    go();
  },
  patience(60_000),
);

it(
  'a fill waits with its reason, can be paused at once, and keeps no other fill from its end',
  async () => {
    const { place, source, stuck, stop, go } = await arrange(['--fill-jobs', '1']);
    const fill = async (action: string, name: string): Promise<FillStatus[]> => {
      await veneerOk('fill', action, place.behind(name));
      return JSON.parse(await veneerOk('fill', 'status', '--json', place.behind(name))) as FillStatus[];
    };
    stop();
    await fill('start', 'stuck.raw');
    await eventually(async () => {
      const [status] = (await place.status()).fills ?? [];
      expect(status).toMatchObject({ state: 'filling', activity: 'waiting' });
      expect(status?.note).toContain(source.mountpoint);
      expect(status?.note).toContain('does not answer');
    }, patience(5000));
    await fill('start', 'other.raw');
    await eventually(async () => {
      const found = (await place.status()).fills?.find(({ name }) => name === 'other.raw');
      expect(found).toMatchObject({ state: 'complete' });
    }, patience(20_000));
    const paused = await timed(fill('pause', 'stuck.raw'));
    expect(paused.result).toMatchObject([{ state: 'paused' }]);
    expect(paused.ms).toBeLessThan(patience(4000));
    go();
    await fill('resume', 'stuck.raw');
    await eventually(async () => {
      const found = (await place.status()).fills?.find(({ name }) => name === 'stuck.raw');
      expect(found).toMatchObject({ state: 'complete' });
    }, patience(40_000));
    expect((await fs.promises.readFile(place.under('stuck.raw'))).equals(stuck)).toBe(true);
  },
  patience(90_000),
);

it(
  'a write that failed has changed nothing, ever; one that succeeded is there: random steps',
  async () => {
    const { place, stuck, other, stop, go } = await arrange();
    const random = seededTest('stuck source');
    const model = { 'stuck.raw': Buffer.from(stuck), 'other.raw': Buffer.from(other) };
    let failed = 0;
    const step = async (unit: number): Promise<void> => {
      const name = random.oneIn(4) ? 'other.raw' : 'stuck.raw';
      const length = random.between(1, 20 * KiB);
      const offset = unit * unitBytes + random.below(unitBytes - length);
      const bytes = random.bytes(length);
      const isWrite = random.oneIn(2);
      const file = place.under(name);
      try {
        if (isWrite) await writeAt(file, bytes, offset);
        else {
          const from = offset - (offset % 4096);
          const found = await readAt(file, from, 4096);
          expect(found.equals(model[name].subarray(from, from + 4096)), `${name} at ${from}`).toBe(true);
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EIO') throw error;
        expect(name).toBe('stuck.raw');
        failed++;
        return;
      }
      if (isWrite) bytes.copy(model[name], offset);
    };
    for (let round = 0; round < modelSteps / 6; round++) {
      if (random.oneIn(2)) stop();
      else go();
      const units = new Set(Array.from({ length: 3 }, () => random.below(diskBytes / unitBytes)));
      // As the guest of each disk does: several at once, never the same place twice.
      for (let pair = 0; pair < 2; pair++) await Promise.all([...units].map(step));
    }
    go();
    console.info(`${failed} of ${modelSteps} failed`);
    expect(failed).toBeGreaterThan(0);
    await sleep(timeoutSeconds * 1000);
    for (const name of ['stuck.raw', 'other.raw'] as const)
      await eventually(
        async () => expect((await fs.promises.readFile(place.under(name))).equals(model[name]), name).toBe(true),
        patience(10_000),
      );
    await place.unmount();
    await place.mount('--allow-path', path.dirname(place.mountpoint), '--allow-path', '/');
    for (const name of ['stuck.raw', 'other.raw'] as const)
      expect((await fs.promises.readFile(place.under(name))).equals(model[name]), `${name}, mounted anew`).toBe(true);
  },
  patience(soak ? 1_800_000 : 180_000),
);
