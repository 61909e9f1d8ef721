/**
 * A folder, and a mountpoint beside it where the tool mounts it as a user would. Whatever a test leaves there is taken away: the process
 * that serves is killed, the mount is unmounted lazily, its state and the files are removed; also when the test fails or runs out of time.
 *
 * This process only ever touches mounts that another process serves, and asynchronously: what hangs fails by its time-out.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished } from 'vitest';
import { askMount } from '../../src/mounts/control.ts';
import { endMount } from '../../src/mounts/end.ts';
import type { MountStatus } from '../../src/mounts/mount-status.ts';
import { mountFiles } from '../../src/mounts/mount-record.ts';
import { isMountpoint } from '../../src/mounts/mountpoint.ts';
import type { FileStatistics } from '../../src/fill/statistics.ts';
import { veneerOk } from '../cli/veneer.ts';
import { patience } from '../patience.ts';
import { soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { mayStartServer, startServer } from './serving.ts';

const alive = new Set<MountPlace>();
const statusWithinMs = 10_000;
/** In /proc/PID/stat; the same on every Linux that Node runs on. */
const msPerTick = 10;

// Before the temporary folders are removed: nothing may be removed through a mount.
process.prependListener('exit', () => {
  for (const place of alive) place.end();
});

export interface LogLine {
  readonly level: number;
  readonly msg: string;
}

export class MountPlace {
  readonly folder: string;
  readonly mountpoint: string;
  readonly temporary = new TempFolder();

  constructor(mountpointName = 'mount') {
    this.folder = this.temporary.file('folder');
    this.mountpoint = this.temporary.file(mountpointName);
    fs.mkdirSync(this.folder);
    fs.mkdirSync(this.mountpoint);
    alive.add(this);
  }

  /** Under the mount. */
  under(name: string): string {
    return path.join(this.mountpoint, name);
  }

  /** In the folder behind the mount. */
  behind(name: string): string {
    return path.join(this.folder, name);
  }

  /** Mounts; the test fails when that is refused. */
  async mount(...options: readonly string[]): Promise<void> {
    if (soak || !mayStartServer(options)) await this.mountByTool(...options);
    else await startServer(this.folder, this.mountpoint, options);
  }

  /** The same, all of it by the tool. Returns what it printed. */
  async mountByTool(...options: readonly string[]): Promise<string> {
    return await veneerOk('mount', ...options, this.folder, this.mountpoint);
  }

  async unmount(): Promise<void> {
    if (soak) await this.unmountByTool();
    else await endMount(this.mountpoint, false);
  }

  async unmountByTool(...options: readonly string[]): Promise<void> {
    await veneerOk('unmount', ...options, this.mountpoint);
  }

  /** As the tool asks for it. */
  async status(): Promise<MountStatus> {
    return await askMount(mountFiles(this.mountpoint).socket, 'status', {}, patience(statusWithinMs));
  }

  /** What `status` tells of one file. */
  async statistics(name: string): Promise<FileStatistics> {
    const { files } = await this.status();
    const found = files.find((file) => file.name === name);
    if (found === undefined)
      expect.fail(`status does not tell of ${name}, only of ${files.map((file) => file.name).join(', ')}`);
    return found;
  }

  /** Lines of the log so far; it outlives the mount. */
  log(): LogLine[] {
    const text = fs.readFileSync(mountFiles(this.mountpoint).log, 'utf8');
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as LogLine);
  }

  /** Messages of warnings and errors in the log. */
  complaints(): string[] {
    return this.log()
      .filter((line) => line.level >= 40)
      .map((line) => line.msg);
  }

  /** The log complains so, soon: a worker's lines come by way of another thread. `from`: complaints before are not looked at. */
  async expectComplaint(pattern: RegExp, from = 0): Promise<void> {
    await eventually(() => expect(this.complaints().slice(from).join('\n')).toMatch(pattern));
  }

  /** What the mount keeps of itself outside of it: names of files that are there. */
  stateFiles(): string[] {
    return Object.entries(mountFiles(this.mountpoint))
      .filter(([, file]) => fs.existsSync(file as string))
      .map(([name]) => name);
  }

  get isMounted(): boolean {
    return isMountpoint(this.mountpoint);
  }

  /** The processes that serve this mount. */
  servers(): number[] {
    return processesNaming(this.mountpoint);
  }

  /** Processor time that the serving process has taken so far, which does not depend on what else the machine does. */
  serverMs(): number {
    const [pid] = this.servers();
    const stat = fs.readFileSync(`/proc/${pid ?? 0}/stat`, 'utf8');
    // The name before them may hold spaces.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * msPerTick;
  }

  /** Ends the serving process as a crash would. */
  async kill(): Promise<void> {
    const servers = this.servers();
    for (const pid of servers) kill(pid);
    await eventually(() => expect(servers.filter(isAlive)).toEqual([]));
  }

  /** Takes everything away. Idempotent, and synchronous so that it also runs while the process exits. */
  end(): void {
    for (const pid of this.servers()) kill(pid);
    for (let tries = 0; this.isMounted && tries < 20; tries++) spawnSync('umount', ['-l', this.mountpoint]);
    if (this.isMounted) throw new Error(`${this.mountpoint} cannot be unmounted`);
    for (const file of Object.values(mountFiles(this.mountpoint)) as string[]) fs.rmSync(file, { force: true });
    alive.delete(this);
    this.temporary.remove();
  }
}

/** Inside a test: a place that goes with it. */
export function placeForTest(mountpointName?: string): MountPlace {
  const place = new MountPlace(mountpointName);
  onTestFinished(() => place.end());
  return place;
}

/** Tries an expectation until it holds or the time is up; then its failure is thrown. */
export async function eventually<T>(expectation: () => T | Promise<T>, withinMs = 5000): Promise<T> {
  const endMs = performance.now() + patience(withinMs);
  for (;;) {
    try {
      return await expectation();
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
    await sleep(50);
  }
}

/** Living processes with this path among their arguments. It is unique to a test, and so are they. */
function processesNaming(argument: string): number[] {
  return fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => readOrNothing(`/proc/${pid}/cmdline`).split('\0').includes(argument))
    .map(Number);
}

/** Whether any thread of it still runs: what it has open and locked is given up by the last one, after its arguments are. */
function isAlive(pid: number): boolean {
  try {
    const threads = fs.readdirSync(`/proc/${pid}/task`);
    return threads.length > 1 || !/^State:\tZ/m.test(readOrNothing(`/proc/${pid}/status`));
  } catch {
    return false;
  }
}

/** Processes may end while they are looked at. */
function readOrNothing(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
