/** Edits of a hive that are written down for people as they are made; what is so already is neither edited nor written down. */
import type { Change } from '../../filesystem/edit/patch.ts';
import { viewOf } from '../../bytes/view.ts';
import type { LoadedHive } from './loaded-hive.ts';
import { encodeLines, encodeText } from './registry/edit.ts';
import { decodeLines, decodeText, type Key } from './registry/hive.ts';
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

  /** Makes the value be there, and the key that it is in. */
  ensureDword(path: string, name: string, number: number, what: string, why: string): void {
    const data = new Uint8Array(4);
    viewOf(data).setUint32(0, number, true);
    this.#ensure(path, name, valueTypes.dword, data, what, why);
  }

  ensureText(
    path: string,
    name: string,
    text: string,
    what: string,
    why: string,
    type: number = valueTypes.text,
  ): void {
    this.#ensure(path, name, type, encodeText(text), what, why);
  }

  ensureLines(path: string, name: string, lines: readonly string[], what: string, why: string): void {
    this.#ensure(path, name, valueTypes.multiText, encodeLines(lines), what, why);
  }

  ensureBinary(path: string, name: string, data: Uint8Array, what: string, why: string): void {
    this.#ensure(path, name, valueTypes.binary, data, what, why);
  }

  #ensure(path: string, name: string, type: number, data: Uint8Array, what: string, why: string): void {
    const { editor } = this.hive;
    const value = this.key(path)?.value(name);
    const old = value?.data();
    if (value?.type === type && old !== undefined && Buffer.from(old).equals(data)) return;
    editor.setValue(editor.ensurePath(editor.hive.root(), path), name, type, data);
    const before = value === undefined || old === undefined ? 'absent' : shown(value.type, old);
    this.record(path, name, before, shown(type, data), what, why);
  }

  /** Writes down an edit that was made with the editor itself. */
  record(path: string, name: string, old: string, now: string, what: string, why: string): void {
    this.hive.touch();
    const where = `${this.hive.name}: ${path}${name === '' ? '' : `\\${name}`}`;
    this.changes.push({ what, where, old, new: now, why });
  }
}

/** Data as people read it. */
function shown(type: number, data: Uint8Array): string {
  if (type === valueTypes.dword && data.length === 4) return String(viewOf(data).getUint32(0, true));
  if (type === valueTypes.text || type === valueTypes.expandText) return decodeText(data);
  if (type === valueTypes.multiText) return decodeLines(data).join(', ');
  return Buffer.from(data).toString('hex');
}
