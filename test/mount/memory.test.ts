/**
 * Memory of a mount: what is kept has one budget, however many disks there are, fill or are read. A small sample in ratio to the budget; in a
 * soak what the limit is promised for, 400 million bytes for each.
 */
import fs from 'node:fs';
import { expect, it, onTestFinished } from 'vitest';
import { createImage } from '../../src/backup/write/create.ts';
import { GiB, KiB, MiB } from '../../src/base/units.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { runOk } from '../cli/veneer.ts';
import { patience } from '../patience.ts';
import { Seeded, soak } from '../seeded.ts';
import { eventually, placeForTest, type MountPlace } from './mounted.ts';

const promisedBytes = 400_000_000;
const leafSpanBytes = 32 * MiB;

/** The most that the serving process has had resident so far. */
function peakBytes(place: MountPlace): number {
  const [pid = 0] = place.servers();
  const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kilobytes) * KiB;
}

/** @param atStart before anything was read. @param budgetBytes of the mount */
function expectModest(place: MountPlace, what: string, atStart: number, budgetBytes: number): void {
  const peak = peakBytes(place);
  const mebibytes = (bytes: number): string => (bytes / MiB).toFixed(0);
  console.info(`${what}: ${mebibytes(atStart)} MiB at the start, ${mebibytes(peak)} MiB at the most`);
  if (soak) expect(peak).toBeLessThan(promisedBytes);
  else expect(peak - atStart).toBeLessThan(3 * budgetBytes);
}

/** Reads 4 KiB in each of so many leaves of every disk, in an order of its own, from four threads. */
const readerScript = `
import mmap, os, random, sys, threading
folder, leaves, span = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names = sorted(name for name in os.listdir(folder) if name.endswith('.raw'))
def read(seed):
    own = random.Random(seed)
    places = [(name, leaf) for name in names for leaf in range(leaves)]
    own.shuffle(places)
    files = {name: os.open(folder + '/' + name, os.O_RDONLY | os.O_DIRECT) for name in names}
    buffer = mmap.mmap(-1, 4096)
    for name, leaf in places[:len(places) // 2]:
        os.preadv(files[name], [buffer], leaf * span)
threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
`;

it(
  'many disks that are read at random take what one does',
  async () => {
    const [disks, sizeBytes] = soak ? [60, 64 * GiB] : [24, 8 * GiB];
    const budget = 32 * MiB;
    const place = placeForTest();
    const raw = place.temporary.file('disk.raw');
    const fd = fs.openSync(raw, 'w');
    fs.ftruncateSync(fd, sizeBytes);
    const random = new Seeded('many disks');
    for (let at = 0; at < sizeBytes; at += leafSpanBytes) fs.writeSync(fd, random.bytes(4096), 0, 4096, at);
    fs.closeSync(fd);
    for (let disk = 0; disk < disks; disk++) {
      await createImage(raw, place.behind(`${disk}.spf`));
      createPluginFile(place.behind(`${disk}.spf`), place.behind(`${disk}.raw`));
    }
    await place.mount('--transport', 'kernel', ...(soak ? [] : ['--cache', '32M']));
    const atStart = peakBytes(place);
    const leaves = String(sizeBytes / leafSpanBytes);
    await runOk('/usr/bin/python3', ['-c', readerScript, place.mountpoint, leaves, String(leafSpanBytes)]);
    expectModest(place, `${disks} disks`, atStart, budget);
  },
  patience(soak ? 1_800_000 : 120_000),
);

it(
  'many fills share threads and take turns, which status shows',
  async () => {
    const disks = soak ? 40 : 8;
    const place = placeForTest();
    const raw = place.temporary.write('disk.raw', new Seeded('many fills').bytes((soak ? 64 : 4) * MiB));
    for (let disk = 0; disk < disks; disk++) {
      await createImage(raw, place.behind(`${disk}.spf`));
      createPluginFile(place.behind(`${disk}.spf`), place.behind(`${disk}.raw`));
    }
    const jobs = soak ? [] : ['--cache', '48M', '--fill-jobs', '1'];
    await place.mount('--transport', 'kernel', ...jobs);
    const atStart = peakBytes(place);
    await place.unmount();
    await place.mount('--transport', 'kernel', '--fill', ...jobs);
    let mostAtOnce = 0;
    let mostQueued = 0;
    await eventually(
      async () => {
        const fills = (await place.status()).fills ?? [];
        const queued = fills.filter(({ activity }) => activity === 'queued');
        const working = fills.filter(({ activity }) => activity !== 'queued' && activity !== 'idle');
        mostAtOnce = Math.max(mostAtOnce, working.length);
        mostQueued = Math.max(mostQueued, queued.length);
        for (const { note } of queued) expect(note).toMatch(/waits for its turn: \d at once/);
        expect(fills.filter(({ state }) => state === 'complete')).toHaveLength(disks);
      },
      patience(soak ? 900_000 : 60_000),
    );
    expect(mostAtOnce).toBeLessThanOrEqual(soak ? 2 : 1);
    expect(mostQueued).toBeGreaterThan(0);
    expectModest(place, `${disks} fills`, atStart, 48 * MiB);
    for (const name of ['0.raw', `${disks - 1}.raw`]) await runOk('cmp', [place.under(name), raw]);
  },
  patience(soak ? 1_800_000 : 180_000),
);

it(
  'a folder of many files is listed',
  async () => {
    const files = soak ? 120_000 : 6000;
    const place = placeForTest();
    fs.mkdirSync(place.behind('many'));
    for (let file = 0; file < files; file++) fs.writeFileSync(place.behind(`many/${file}`), 'x'.repeat(200));
    await place.mount('--transport', 'kernel', ...(soak ? [] : ['--cache', '32M']));
    const atStart = peakBytes(place);
    const listed = await runOk('find', [place.under('many'), '-type', 'f', '-size', '+0', '-printf', '.']);
    expect(listed).toHaveLength(files);
    expectModest(place, `${files} files`, atStart, 32 * MiB);
    // Forgetting so many takes a moment, which is not to be the next test's.
    onTestFinished(() => place.end());
  },
  patience(soak ? 1_800_000 : 120_000),
);
