/**
 * A copy of the checkout that mutants are written into. All that is started for it is marked in its environment, so that what a killed test has
 * left (processes, mounts, loop devices, files) is found and ended.
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';

const markVariable = 'VENEER_MUTANTS_SCRATCH';
/** Everybody may go through it: some tests act as another user. */
const folderMode = 0o755;

export interface Ended {
  /** Undefined when a signal ended it, or the time. */
  readonly status: number | undefined;
  readonly output: string;
}

export class Scratch implements Disposable {
  readonly path: string;
  readonly #temporary: string;

  /** Copies what git knows of the checkout, and what it would add. */
  constructor(root: string) {
    this.path = fs.mkdtempSync(path.join(os.tmpdir(), 'mutants-'));
    this.#temporary = path.join(this.path, 'tmp');
    fs.chmodSync(this.path, folderMode);
    const args = ['-C', root, 'ls-files', '-z', '--cached', '--others', '--exclude-standard'];
    const { stdout } = spawnSync('git', args, { encoding: 'utf8', maxBuffer: 2 ** 26 });
    for (const name of stdout.split('\0').filter((each) => each !== '')) this.#copy(root, name);
    fs.symlinkSync(path.join(root, 'node_modules'), path.join(this.path, 'node_modules'));
    this.#makeTemporary();
  }

  file(name: string): string {
    return path.join(this.path, name);
  }

  /** Runs Node in the copy to its end. @throws when aborted */
  async runNode(args: readonly string[], env: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Ended> {
    signal.throwIfAborted();
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, ...args], {
      cwd: this.path,
      env: { ...process.env, TMPDIR: this.#temporary, [markVariable]: this.path, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      signal,
      killSignal: 'SIGKILL',
    });
    const output: string[] = [];
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (data: Buffer) => output.push(data.toString()));
    const status = await new Promise<number | undefined>((resolve, reject) => {
      child.on('error', reject);
      // Not `close`: what outlives it may hold its streams.
      child.on('exit', (code) => setImmediate(() => resolve(code ?? undefined)));
    });
    return { status, output: output.join('') };
  }

  /** Ends all that was started here and is still there, and removes what it has left. */
  clear(): void {
    this.#killAll();
    for (const place of this.#mounts()) spawnSync('umount', ['--lazy', place]);
    // Serving processes that the unmounting has woken.
    this.#killAll();
    for (const device of this.#loopDevices()) spawnSync('losetup', ['--detach', device]);
    if (this.#mounts().length > 0) throw new Error(`${this.#mounts().join(', ')}: cannot be unmounted`);
    spawnSync('rm', ['-rf', '--one-file-system', this.#temporary]);
    this.#makeTemporary();
  }

  [Symbol.dispose](): void {
    this.clear();
    fs.rmSync(this.path, { recursive: true, force: true });
  }

  #copy(root: string, name: string): void {
    const from = path.join(root, name);
    // Deleted in the checkout, but not in the index.
    if (!fs.existsSync(from)) return;
    fs.mkdirSync(path.dirname(this.file(name)), { recursive: true });
    fs.cpSync(from, this.file(name), { verbatimSymlinks: true });
  }

  #makeTemporary(): void {
    fs.mkdirSync(this.#temporary, { recursive: true });
    fs.chmodSync(this.#temporary, 0o1777);
  }

  #killAll(): void {
    for (const pid of fs
      .readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number))
      if (pid !== process.pid && this.#isOurs(pid)) kill(pid);
  }

  #isOurs(pid: number): boolean {
    try {
      return fs.readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`${markVariable}=${this.path}`);
    } catch {
      return false;
    }
  }

  /** The deepest first. */
  #mounts(): string[] {
    return fs
      .readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => (line.split(' ')[4] ?? '').replaceAll(/\\(\d{3})/g, (_, octal: string) => fromOctal(octal)))
      .filter((place) => place.startsWith(`${this.path}/`))
      .toReversed();
  }

  #loopDevices(): string[] {
    const { stdout } = spawnSync('losetup', ['--noheadings', '--output', 'NAME,BACK-FILE'], { encoding: 'utf8' });
    return stdout
      .split('\n')
      .filter((line) => line.includes(` ${this.path}/`))
      .map((line) => line.split(' ')[0] ?? '');
  }
}

function fromOctal(digits: string): string {
  return String.fromCharCode(parseInt(digits, 8));
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
