/** A process that does file system calls as a user, the same ones in several folders: acting-user.py says which calls there are. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createInterface, type Interface } from 'node:readline';

export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** What a call has returned, or the name of its error. */
export type Outcome = unknown;

export class ActingUser {
  readonly user: User;
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  constructor(user: User) {
    this.user = user;
    const groups = user.groups.length === 0 ? '-' : user.groups.join(',');
    const script = fileURLToPath(new URL('acting-user.py', import.meta.url));
    this.#child = spawn('/usr/bin/python3', [script, String(user.uid), String(user.gid), groups], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: '/',
    });
    if (this.#child.stdout === null) throw new Error('the acting user has no output');
    this.#lines = createInterface(this.#child.stdout);
  }

  /** The outcome of a call in each of the folders. */
  async calls(
    folders: readonly string[],
    call: string,
    names: readonly string[],
    args: readonly unknown[] = [],
  ): Promise<readonly Outcome[]> {
    const answered = once(this.#lines, 'line');
    this.#child.stdin?.write(`${JSON.stringify([folders, call, names, args])}\n`);
    const [line] = (await answered) as [string];
    return JSON.parse(line) as Outcome[];
  }

  async call(folder: string, call: string, names: readonly string[], args: readonly unknown[] = []): Promise<Outcome> {
    return (await this.calls([folder], call, names, args))[0];
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }
}

/** Why this process cannot act as others; undefined where it can. */
export const whyNotAsOthers =
  process.getuid?.() === 0 ? undefined : 'only root can become another user, and serve others';
