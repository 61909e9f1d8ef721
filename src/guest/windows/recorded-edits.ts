/** Edits of a hive that are written down for people as they are made; what is so already is neither edited nor written down. */
import type { Change } from '../plan.ts';
import type { LoadedHive } from './loaded-hive.ts';
import type { Key } from './registry/hive.ts';
import { valueTypes } from './registry/layout.ts';

export class RecordedEdits {
  readonly hive: LoadedHive;
  readonly changes: Change[] = [];

  constructor(hive: LoadedHive) {
    this.hive = hive;
  }

  key(path: string): Key | undefined {
    return this.hive.editor.hive.key(path);
  }

  /** Makes a number of the key at `path` be `number`, in a value that may be absent. */
  setDword(path: string, name: string, number: number, what: string, why: string): void {
    const key = this.key(path);
    if (key === undefined) return;
    const old = key.dword(name);
    if (old === number) return;
    this.hive.editor.setDword(key, name, number);
    this.record(path, name, old === undefined ? 'absent' : String(old), String(number), what, why);
  }

  /** Makes a value of several lines be these; as few lines as it had or fewer. */
  setLines(path: string, name: string, lines: readonly string[], what: string, why: string): void {
    const key = this.key(path);
    const old = key?.lines(name);
    if (key === undefined || old === undefined || old.join('\0') === lines.join('\0')) return;
    this.hive.editor.setLines(key, name, lines);
    this.record(path, name, old.join(', '), lines.join(', '), what, why);
  }

  setBinary(
    path: string,
    name: string,
    data: Uint8Array,
    shown: readonly [string, string],
    what: string,
    why: string,
  ): void {
    const key = this.key(path);
    if (key === undefined) return;
    this.hive.editor.setValue(key, name, valueTypes.binary, data);
    this.record(path, name, shown[0], shown[1], what, why);
  }

  /** Writes down an edit that was made with the editor itself. */
  record(path: string, name: string, old: string, now: string, what: string, why: string): void {
    this.hive.touch();
    const where = `${this.hive.name}: ${path}${name === '' ? '' : `\\${name}`}`;
    this.changes.push({ what, where, old, new: now, why });
  }
}
