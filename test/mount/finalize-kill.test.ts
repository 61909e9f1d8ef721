/**
 * The process that serves is killed at the cut-over and in `finalize`: the next mount shows the native disk or the finalized file, with exactly
 * the bytes that were written, and takes writes into it. Nobody ever sees the plugin file's text, or writes into it.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { createImage } from '../../src/backup/write/create.ts';
import { MiB } from '../../src/base/units.ts';
import { askMount } from '../../src/mounts/control.ts';
import type { FillStatus, Finalized } from '../../src/fill/fill-status.ts';
import { mountFiles } from '../../src/mounts/mount-record.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { straceArguments, whyNoStrace } from '../backup/strace.ts';
import { patience } from '../patience.ts';
import { seededTest, soak, type Seeded } from '../seeded.ts';
import { writeUntilKilled, type AcknowledgedWrite } from './acknowledged-writes.ts';
import { readPart } from './guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from './mounted.ts';

const kills = soak ? 500 : 2;
const sizeBytes = 3 * MiB + 512;
const timeoutMs = 60_000;
const answersWithinMs = 30_000;
/** The plugin file, and which of its files has the guest's bytes. */
const disks = [
  { plugin: 'vm.raw', guest: 'vm.raw' },
  { plugin: 'vm.vmdk', guest: 'vm-flat.vmdk' },
] as const;
type DiskNames = (typeof disks)[number];

class KilledDisk {
  readonly place: MountPlace;
  readonly names: DiskNames;
  /** In the mounted folder: the mounted folder itself, or one in it. */
  readonly folder: string;
  readonly text: string;
  readonly expected: Buffer;

  /** Anew, whatever lay in the folder. */
  constructor(place: MountPlace, names: DiskNames, original: Buffer, folder = '.') {
    this.place = place;
    this.names = names;
    this.folder = folder;
    for (const name of fs.readdirSync(place.folder))
      if (name !== 'vm.spf') fs.rmSync(place.behind(name), { recursive: true });
    fs.mkdirSync(place.behind(folder), { recursive: true });
    createPluginFile(place.behind('vm.spf'), this.#behind(names.plugin));
    this.text = fs.readFileSync(this.#behind(names.plugin), 'utf8');
    this.expected = Buffer.from(original);
  }

  get guest(): string {
    return this.#under(this.names.guest);
  }

  async complete(): Promise<void> {
    await eventually(async () => {
      const states = await this.ask('status');
      expect(states.map(({ state }) => state)).toEqual(states.map(() => 'complete'));
      expect(states.length).toBeGreaterThan(0);
    }, 30_000);
  }

  async ask(action: 'start' | 'status'): Promise<FillStatus[]> {
    return await askMount(this.#socket, `fill.${action}`, { file: this.#file }, patience(answersWithinMs));
  }

  async finalize(): Promise<Finalized> {
    return await askMount(this.#socket, 'fill.finalize', { file: this.#file }, patience(answersWithinMs));
  }

  get #socket(): string {
    return mountFiles(this.place.mountpoint).socket;
  }

  get #file(): string {
    return path.join(this.folder, this.names.plugin);
  }

  /** Writes until the server is dead. */
  async writeUntil(random: Seeded, kill: () => Promise<void>): Promise<AcknowledgedWrite | undefined> {
    const writes = await writeUntilKilled({ file: this.guest, sizeBytes }, `writes ${random.below(2 ** 40)}`, kill);
    for (const { offset, lengthBytes, fill } of writes.complete) this.expected.fill(fill, offset, offset + lengthBytes);
    return writes.pending;
  }

  /** @param pending any part of it may be there. @returns whether the disk file is in its place */
  async expectWholeAtNextMount(random: Seeded, pending: AcknowledgedWrite | undefined): Promise<boolean> {
    const { place, names, text, expected } = this;
    await place.mount('--transport', random.oneIn(4) ? 'fuse-native' : 'kernel');
    // In whatever order they are looked at.
    const looked = [`${names.plugin}.finalized`, names.plugin, names.guest];
    if (random.oneIn(2)) looked.reverse();
    for (const name of looked) await fs.promises.stat(this.#under(name)).catch(() => undefined);
    for (const name of await fs.promises.readdir(this.#under('.'))) expect(name).not.toContain('.replacement');
    const found = await this.#read();
    if (pending !== undefined)
      found.copy(expected, pending.offset, pending.offset, pending.offset + pending.lengthBytes);
    expect(found.equals(expected), 'after the kill').toBe(true);
    const first = await readPart(this.#under(names.plugin), 0, 64);
    expect(first.toString('latin1')).not.toContain('"veneer"');
    const at = random.below(sizeBytes - 5000);
    const handle = await fs.promises.open(this.guest, 'r+');
    try {
      await handle.write(Buffer.alloc(5000, 0xd7), 0, 5000, at);
      await handle.sync();
    } finally {
      await handle.close();
    }
    expected.fill(0xd7, at, at + 5000);
    expect((await this.#read()).equals(expected), 'after a further write').toBe(true);
    await place.unmount();
    return this.#expectWholeBehind(text);
  }

  #expectWholeBehind(text: string): boolean {
    const { names } = this;
    const record = `${names.plugin}.finalized`;
    if (fs.existsSync(this.#behind(record))) expect(fs.readFileSync(this.#behind(record), 'utf8')).toBe(text);
    if (fs.readFileSync(this.#behind(names.plugin), 'latin1') === text) return false;
    expect(fs.readFileSync(this.#behind(names.guest)).equals(this.expected), 'behind the mount').toBe(true);
    expect(
      fs
        .readdirSync(this.#behind('.'))
        .filter((name) => name !== 'vm.spf')
        .sort(),
    ).toEqual([...new Set([names.guest, names.plugin, record])].sort());
    return true;
  }

  #behind(name: string): string {
    return path.join(this.place.folder, this.folder, name);
  }

  #under(name: string): string {
    return path.join(this.place.mountpoint, this.folder, name);
  }

  async #read(): Promise<Buffer> {
    return await readPart(this.guest, 0, sizeBytes + 1);
  }
}

async function placeWithImage(random: Seeded): Promise<{ place: MountPlace; original: Buffer }> {
  const place = placeForTest();
  const original = random.bytes(sizeBytes);
  await createImage(place.temporary.write('disk.raw', original), place.behind('vm.spf'));
  return { place, original };
}

/** At once: what a look for the process takes would be added to the moment. */
async function killNow(place: MountPlace, pid: number): Promise<void> {
  process.kill(pid, 'SIGKILL');
  await place.kill();
}

function serverOf(place: MountPlace): number {
  const [pid] = place.servers();
  if (pid === undefined) expect.fail('nobody serves the mount');
  return pid;
}

it(`${kills} kills at random moments of the cut-over and of finalize`, { timeout: kills * timeoutMs }, async () => {
  const random = seededTest('kills in finalize');
  const { place, original } = await placeWithImage(random);
  const longest = { cutOver: 300, finalize: 100 };
  let finalized = 0;
  for (let round = 0; round < kills; round++) {
    const disk = new KilledDisk(place, random.pick(disks), original, random.pick(['.', 'below']));
    await place.mount('--transport', random.oneIn(4) ? 'fuse-native' : 'kernel');
    await disk.ask('start');
    const pid = serverOf(place);
    let pending: AcknowledgedWrite | undefined;
    if (round % 2 === 0) {
      pending = await disk.writeUntil(random, async () => {
        await sleep(random.below(longest.cutOver));
        await killNow(place, pid);
      });
    } else {
      await disk.complete();
      pending = await disk.writeUntil(random, async () => {
        const began = performance.now();
        const asked = disk.finalize().then(
          () => (longest.finalize = Math.ceil((performance.now() - began) * 1.2)),
          () => undefined,
        );
        await sleep(random.below(longest.finalize));
        await killNow(place, pid);
        await asked;
      });
    }
    if (await disk.expectWholeAtNextMount(random, pending)) finalized++;
  }
  console.info(`${kills} kills, ${finalized} disk files in their places, seed ${JSON.stringify(random.seed)}`);
});

/** A disk of one file is renamed twice: its record, and the file itself. */
const renames = [
  { names: disks[0], when: 1 },
  { names: disks[0], when: 2 },
  { names: disks[1], when: 2 },
  { names: disks[1], when: 3 },
] as const;

it.for(renames)(
  'killed at rename $when of finalize, $names.plugin is the disk at the next mount, whatever is looked at first',
  { timeout: timeoutMs },
  async ({ names, when }, ctx) => {
    const noStrace = whyNoStrace();
    if (noStrace !== undefined) ctx.skip(noStrace);
    const random = seededTest(`rename ${when} of ${names.plugin}`);
    const { place, original } = await placeWithImage(random);
    const disk = new KilledDisk(place, names, original);
    await place.mount('--transport', 'kernel');
    await disk.ask('start');
    await disk.complete();
    const pid = serverOf(place);
    const injection = { syscall: 'rename', what: 'error=EIO:signal=SIGKILL', when };
    const tracer = spawn('strace', [...straceArguments(injection, []), '-p', String(pid)], { stdio: 'ignore' });
    const ended = new Promise((resolve) => tracer.once('close', resolve));
    await eventually(() => expect(fs.readFileSync(`/proc/${pid}/status`, 'utf8')).not.toMatch(/^TracerPid:\t0$/m));
    await expect(disk.finalize()).rejects.toThrow();
    await place.kill();
    await ended;
    expect(await disk.expectWholeAtNextMount(random, undefined)).toBe(false);
  },
);
