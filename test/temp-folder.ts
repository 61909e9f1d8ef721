/** A folder for one test's or one suite's files, removed with all that is in it, also when the test fails. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const alive = new Set<TempFolder>();

// For what a suite that was cut short did not give back itself.
process.on('exit', () => {
  for (const folder of alive) folder.remove();
});

export class TempFolder implements Disposable {
  readonly path: string;

  /** Makes the folder. `using folder = new TempFolder()` in a test; `remove()` in afterAll. */
  constructor() {
    this.path = fs.mkdtempSync(path.join(os.tmpdir(), 'veneer-test-'));
    alive.add(this);
  }

  /** The path of a file in the folder. */
  file(name: string): string {
    return path.join(this.path, name);
  }

  /** Writes a file in the folder and returns its path. */
  write(name: string, contents: Uint8Array | string): string {
    fs.writeFileSync(this.file(name), contents);
    return this.file(name);
  }

  /** Names of what is in the folder, sorted. */
  names(): string[] {
    return fs.readdirSync(this.path).sort();
  }

  /** Idempotent. */
  remove(): void {
    alive.delete(this);
    fs.rmSync(this.path, { recursive: true, force: true });
  }

  [Symbol.dispose](): void {
    this.remove();
  }
}
