/**
 * Random steps on the names of plugin files, under the mount and behind it, against a model that knows for each name, and for each open file,
 * what must be read or that it must be refused. Two threads' views of one mount take turns.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, it, onTestFailed } from 'vitest';
import { VeneerError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { BlockCache } from '../../src/backup/read/block-cache.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { noKeys } from '../../src/backup/crypto/key-ring.ts';
import { randomGuid } from '../../src/bytes/guid.ts';
import { Filter } from '../../src/mount/filter.ts';
import { errnoOf } from '../../src/mount/errno.ts';
import type { OpenFile } from '../../src/mount/open-file.ts';
import type { Place } from '../../src/mount/place.ts';
import { OpenReplacements } from '../../src/replacement/replacements.ts';
import { Statistics } from '../../src/fill/statistics.ts';
import { dataPathOf, mapPathOf } from '../../src/plugin/beside.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { parsePluginFile } from '../../src/plugin/plugin-file.ts';
import { seededTest, soak, type Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { change, writeDisk } from './guest-disk.ts';

const steps = soak ? 10_000 : 400;
const at = 5 * MiB + 7;
const textBytes = 12;
const exchange = 2;
const folderNames = ['a', 'b', 'c'];
const fileNames = ['0.raw', '1.raw', '2.vhdx'];

/** What was written to a disk: it lies beside a name, and says to which plugin file it belongs. */
interface Kept {
  readonly id: string;
  text: string;
}

/** A plugin file: an inode. */
interface Plugin {
  id: string;
  /** Bound to it since it was opened in this mount. */
  kept: Kept | undefined;
}

type File = Plugin | 'plain';

interface Handle {
  readonly file: OpenFile;
  readonly plugin: Plugin;
  /** The name that it was opened by, wherever that was moved; undefined once it is gone, though the file may have another. */
  name: string | undefined;
}

class Model {
  /** By path. */
  readonly files = new Map<string, File>();
  readonly kept = new Map<string, Kept>();
  readonly handles: Handle[] = [];

  namesOf(plugin: Plugin): string[] {
    return [...this.files].filter(([, file]) => file === plugin).map(([name]) => name);
  }

  plugin(name: string): Plugin | undefined {
    const file = this.files.get(name);
    return file === 'plain' ? undefined : file;
  }

  /** What lies beside a plugin file and is its own. */
  own(name: string): Kept | undefined {
    const kept = this.kept.get(name);
    return kept !== undefined && kept.id === this.plugin(name)?.id ? kept : undefined;
  }

  /** What an open by name gives. */
  opened(name: string): Plugin | 'ENOENT' | 'EMLINK' | 'EIO' {
    const plugin = this.plugin(name);
    if (plugin === undefined) return 'ENOENT';
    if (this.namesOf(plugin).length > 1) return 'EMLINK';
    if (this.kept.has(name)) return this.own(name) === undefined ? 'EIO' : plugin;
    return this.#mayHaveBeen(name, plugin) ? 'EIO' : plugin;
  }

  /** Whether writes of its id lie in its folder under a name that nothing has: nobody can tell whether it was renamed, or is a copy. */
  #mayHaveBeen(name: string, plugin: Plugin): boolean {
    const folder = path.dirname(name);
    return [...this.kept].some(
      ([other, { id }]) => path.dirname(other) === folder && !this.files.has(other) && id === plugin.id,
    );
  }

  /** What a read by a handle gives. */
  text({ plugin, name }: Handle): string {
    if (plugin.kept !== undefined) return plugin.kept.text;
    const own = name !== undefined && this.namesOf(plugin).length === 1 ? this.own(name) : undefined;
    if (own !== undefined) plugin.kept = own;
    return own?.text ?? 'image';
  }

  /** What becomes of a write by a handle. */
  write({ plugin, name }: Handle, text: string): 'done' | 'EIO' | 'EMLINK' {
    if (plugin.kept === undefined) {
      const names = this.namesOf(plugin);
      if (names.length > 1) return 'EMLINK';
      if (name === undefined) return 'EIO';
      const kept = this.kept.get(name) ?? { id: plugin.id, text: 'image' };
      if (kept.id !== plugin.id) return 'EIO';
      this.kept.set(name, kept);
      plugin.kept = kept;
    }
    plugin.kept.text = text;
    return 'done';
  }

  put(name: string, file: File): void {
    this.remove(name);
    this.files.set(name, file);
  }

  remove(name: string): void {
    this.files.delete(name);
    this.rename(name, undefined);
  }

  move(from: string, to: string): void {
    const file = this.files.get(from);
    if (file === undefined) return;
    this.remove(to);
    this.files.delete(from);
    this.files.set(to, file);
    this.rename(from, to);
  }

  /** What open files were opened by. */
  rename(from: string, to: string | undefined): void {
    for (const handle of this.handles) if (handle.name === from) handle.name = to;
  }
}

class Driver {
  readonly #random: Seeded;
  readonly #folder: string;
  readonly #image: string;
  readonly #model = new Model();
  #replacements: OpenReplacements;
  #filters: Filter[] = [];
  #made = 0;

  constructor(random: Seeded, folder: string, image: string) {
    this.#random = random;
    this.#folder = folder;
    this.#image = image;
    for (const name of [...folderNames, 'made']) fs.mkdirSync(this.#behind(name));
    this.#replacements = this.#mount();
  }

  #mount(): OpenReplacements {
    const replacements = new OpenReplacements(this.#folder);
    const options = {
      folder: this.#folder,
      allowPaths: [],
      trustPluginFiles: true,
      present: undefined,
      write: undefined,
      mountId: randomGuid(),
      keys: noKeys,
    };
    this.#filters = [0, 1].map(
      () =>
        new Filter(options, {
          statistics: new Statistics(),
          cache: BlockCache.ofOneThread(MiB, MiB),
          log: () => undefined,
          replacements,
        }),
    );
    return replacements;
  }

  close(): void {
    while (this.#model.handles.length > 0) this.#model.handles.pop()?.file.close();
    for (const filter of this.#filters) filter.close();
    this.#replacements.close();
  }

  #remount(): string {
    this.close();
    for (const file of this.#model.files.values()) if (file !== 'plain') file.kept = undefined;
    this.#replacements = this.#mount();
    return 'remount';
  }

  #behind(name: string): string {
    return path.join(this.#folder, name);
  }

  get #filter(): Filter {
    return this.#random.pick(this.#filters);
  }

  #place(filter: Filter, name: string): Place {
    return filter.child(filter.child(filter.root, path.dirname(name)), path.basename(name));
  }

  #name(): string {
    return `${this.#random.pick(folderNames)}/${this.#random.pick(fileNames)}`;
  }

  /** Makes a plugin file beside, and has it take a name: a new inode. */
  #put(name: string, id?: string): void {
    const made = this.#behind('made/new');
    createPluginFile(this.#image, made, { force: true, format: 'raw' });
    const contents = fs.readFileSync(made, 'utf8');
    const own = parsePluginFile(Buffer.from(contents), made).id;
    fs.rmSync(made);
    // Another inode each time, and another time: what was looked at once is known by these.
    fs.writeFileSync(made, id === undefined ? contents : contents.replaceAll(own, id));
    this.#touch(made);
    fs.renameSync(made, this.#behind(name));
    this.#model.put(name, { id: id ?? own, kept: undefined });
  }

  #touch(file: string): void {
    const seconds = 1e9 + ++this.#made;
    fs.utimesSync(file, seconds, seconds);
  }

  /** One random step. @returns what it was */
  step(): string {
    const [from, to] = [this.#name(), this.#name()];
    switch (this.#random.below(18)) {
      case 0:
        return this.#replaceBehind(to);
      case 1:
        return this.#copy(from, to);
      case 2:
        return this.#link(from, to);
      case 3:
        return this.#removeBehind(from);
      case 4:
        return this.#remove(from);
      case 5:
      case 6:
        return this.#rename(from, to);
      case 7:
        return this.#exchange(from, to);
      case 8:
        return this.#create(to);
      case 9:
        return this.#edit(from);
      case 10:
        return this.#putAway(from);
      case 11:
        return this.#random.oneIn(4) ? this.#remount() : this.#moveFolder();
      case 12:
        return this.#plain(from);
      case 13:
        return this.#closeHandle();
      case 14:
      case 15:
        return this.#useHandle();
      default:
        return this.#openHandle(from);
    }
  }

  #replaceBehind(name: string): string {
    this.#put(name);
    return `another plugin file as ${name}`;
  }

  /** `cp`: into the file that is there, or a new one. */
  #copy(from: string, to: string): string {
    const source = this.#model.plugin(from);
    const there = this.#model.files.get(to);
    if (source === undefined || there === source || (there !== 'plain' && there?.kept !== undefined))
      return 'nothing to copy';
    fs.copyFileSync(this.#behind(from), this.#behind(to));
    this.#touch(this.#behind(to));
    if (there === undefined || there === 'plain') {
      this.#model.put(to, { id: source.id, kept: undefined });
    } else {
      there.id = source.id;
      this.#closeHandlesOf(there);
    }
    return `copy ${from} to ${to}`;
  }

  #link(from: string, to: string): string {
    const source = this.#model.plugin(from);
    if (source === undefined || this.#model.files.has(to)) return 'nothing to link';
    fs.linkSync(this.#behind(from), this.#behind(to));
    this.#model.files.set(to, source);
    return `link ${from} as ${to}`;
  }

  #removeBehind(name: string): string {
    if (!this.#model.files.has(name)) return 'nothing to remove behind';
    this.#model.remove(name);
    fs.rmSync(this.#behind(name));
    return `remove ${name} behind`;
  }

  #remove(name: string): string {
    if (!this.#model.files.has(name)) return 'nothing to remove';
    const filter = this.#filter;
    const plugin = this.#model.plugin(name);
    const isOwn = this.#model.own(name) !== undefined;
    // The other name would be left without what was written.
    const mayGo = !isOwn || plugin === undefined || this.#model.namesOf(plugin).length === 1;
    const did = attempt(() => filter.removeFile(this.#place(filter, name)));
    expect(did, `remove ${name}`).toBe(mayGo ? 'done' : 'EMLINK');
    if (!mayGo) return `remove ${name}: ${did}`;
    if (isOwn) this.#model.kept.delete(name);
    this.#model.remove(name);
    return `remove ${name}`;
  }

  /** Whether names and what lies beside them keep a plugin file from coming to `to`. */
  #mayMove(from: string, to: string): boolean {
    const model = this.#model;
    if (model.own(from) !== undefined || model.own(to) !== undefined) return false;
    return model.plugin(from) === undefined || !model.kept.has(to);
  }

  #rename(from: string, to: string): string {
    const model = this.#model;
    // Of two names of one file the kernel does nothing.
    if (!model.files.has(from) || model.files.get(from) === model.files.get(to)) return 'nothing to rename';
    const isRight = model.plugin(from) !== undefined || model.plugin(to) === undefined;
    const filter = this.#filter;
    const did = attempt(() => filter.rename(this.#place(filter, from), this.#place(filter, to)));
    expect(did, `rename ${from} to ${to}`).toBe(isRight && this.#mayMove(from, to) ? 'done' : 'EROFS');
    if (did === 'done') model.move(from, to);
    return `rename ${from} to ${to}: ${did}`;
  }

  #exchange(one: string, other: string): string {
    const model = this.#model;
    const [first, second] = [model.files.get(one), model.files.get(other)];
    if (first === undefined || second === undefined || first === second) return 'nothing to exchange';
    const isRight =
      (first === 'plain') === (second === 'plain') && this.#mayMove(one, other) && this.#mayMove(other, one);
    const filter = this.#filter;
    const did = attempt(() => filter.rename(this.#place(filter, one), this.#place(filter, other), exchange));
    expect(did, `exchange ${one} and ${other}`).toBe(isRight ? 'done' : 'EROFS');
    if (did === 'done') {
      model.move(one, 'aside');
      model.move(other, one);
      model.move('aside', other);
    }
    return `exchange ${one} and ${other}: ${did}`;
  }

  /** `plugin create --force`. */
  #create(name: string): string {
    const mayBe = !this.#model.kept.has(name) && this.#model.files.get(name) !== 'plain';
    const did = attempt(() => createPluginFile(this.#image, this.#behind(name), { force: true, format: 'raw' }));
    expect(did, `create ${name}`).toBe(mayBe ? 'done' : 'EINVAL');
    if (!mayBe) return `create ${name}: refused`;
    this.#touch(this.#behind(name));
    const { id } = parsePluginFile(fs.readFileSync(this.#behind(name)), name);
    this.#model.put(name, { id, kept: undefined });
    return `create ${name}`;
  }

  /** As an editor or `reconfigure` does: a new file with the same id. */
  #edit(name: string): string {
    const plugin = this.#model.plugin(name);
    if (plugin === undefined) return 'nothing to edit';
    this.#put(name, plugin.id);
    return `edit ${name}`;
  }

  /** The writes of another plugin file are moved away, so that the one that is there may be used. */
  #putAway(name: string): string {
    const kept = this.#model.kept.get(name);
    if (kept === undefined || this.#model.own(name) !== undefined) return 'nothing to put away';
    const away = this.#behind('away');
    fs.mkdirSync(away, { recursive: true });
    for (const part of [dataPathOf(this.#behind(name)), mapPathOf(this.#behind(name))])
      fs.renameSync(part, path.join(away, `${++this.#made}`));
    this.#model.kept.delete(name);
    return `put away what lies beside ${name}`;
  }

  #moveFolder(): string {
    const from = this.#random.pick(folderNames);
    const filter = this.#filter;
    const child = (name: string): Place => filter.child(filter.root, name);
    const temporary = 'moving';
    // To another name, and then all exchanged with another folder.
    const other = this.#random.pick(folderNames.filter((name) => name !== from));
    filter.rename(child(from), child(temporary));
    filter.rename(child(other), child(from));
    this.#filter.rename(child(temporary), child(other));
    for (const map of [this.#model.files, this.#model.kept] as Map<string, unknown>[]) {
      const entries = [...map];
      map.clear();
      for (const [name, value] of entries) {
        const folder = path.dirname(name);
        const moved = folder === from ? other : folder === other ? from : folder;
        map.set(`${moved}/${path.basename(name)}`, value);
      }
    }
    for (const handle of this.#model.handles) {
      if (handle.name === undefined) continue;
      const folder = path.dirname(handle.name);
      const moved = folder === from ? other : folder === other ? from : folder;
      handle.name = `${moved}/${path.basename(handle.name)}`;
    }
    return `${from} and ${other} change places`;
  }

  #plain(name: string): string {
    if (this.#model.files.has(name)) return 'no room for a plain file';
    fs.writeFileSync(this.#behind(name), 'plain');
    this.#model.files.set(name, 'plain');
    return `a plain file ${name}`;
  }

  #openHandle(name: string): string {
    const filter = this.#filter;
    const wanted = this.#model.opened(name);
    if (this.#model.files.get(name) === 'plain') return 'not a disk';
    let file: OpenFile | undefined;
    const did = attempt(() => {
      file = filter.open(this.#place(filter, name), fs.constants.O_RDWR);
    });
    expect(did, `open ${name}`).toBe(typeof wanted === 'string' ? wanted : 'done');
    if (file === undefined || typeof wanted === 'string') return `open ${name}: ${did}`;
    const handle = { file, plugin: wanted, name };
    this.#model.handles.push(handle);
    return `open ${name}: ${this.#readOrWrite(handle)}`;
  }

  #useHandle(): string {
    if (this.#model.handles.length === 0) return 'nothing is open';
    const handle = this.#random.pick(this.#model.handles);
    return `open file of ${this.#model.namesOf(handle.plugin).join(', ') || 'no name'}: ${this.#readOrWrite(handle)}`;
  }

  #readOrWrite(handle: Handle): string {
    const { file } = handle;
    const text = this.#model.text(handle);
    const found = Buffer.alloc(textBytes);
    file.read(found, at);
    expect(found.toString().trim(), 'read').toBe(text);
    if (this.#random.oneIn(2)) return `reads ${text}`;
    const written = `text ${++this.#made}`;
    const did = attempt(() => file.write(Buffer.from(written.padEnd(textBytes)), at));
    expect(did, 'write').toBe(this.#model.write(handle, written));
    return `writes ${written}: ${did}`;
  }

  #closeHandle(): string {
    const handle = this.#model.handles.splice(this.#random.below(Math.max(1, this.#model.handles.length)), 1)[0];
    handle?.file.close();
    return 'close';
  }

  /** Handles of a plugin file that is overwritten in place read what it was: that is not what is looked at here. */
  #closeHandlesOf(plugin: Plugin): void {
    for (const [index, { file, plugin: of }] of [...this.#model.handles.entries()].reverse()) {
      if (of !== plugin) continue;
      file.close();
      this.#model.handles.splice(index, 1);
    }
  }
}

/** 'done', or the name of the errno that a caller would get. */
function attempt(action: () => unknown): string {
  try {
    action();
    return 'done';
  } catch (error) {
    if (!(error instanceof VeneerError) && !(error instanceof Error && 'syscall' in error)) throw error;
    const found = Object.entries(os.constants.errno).find(([, number]) => number === errnoOf(error));
    return found?.[0] ?? String(error);
  }
}

it(
  `after each of ${steps} random steps every name reads as its own disk, or is refused`,
  { timeout: 1_800_000 },
  async () => {
    const random = seededTest('identity');
    using folder = new TempFolder();
    fs.mkdirSync(folder.file('folder'));
    const raw = folder.file('disk.raw');
    writeDisk(raw, 'identity', 6 * MiB + 512);
    change(raw, at, Buffer.from('image'.padEnd(textBytes)));
    const image = path.join(folder.file('folder'), 'vm.spf');
    await createImage(raw, image);
    const trace: string[] = [];
    onTestFailed(() => console.error(trace.slice(-60).join('\n')));
    const driver = new Driver(random, fs.realpathSync(folder.file('folder')), image);
    try {
      for (let number = 0; number < steps; number++) trace.push(driver.step());
    } finally {
      driver.close();
    }
    const counts = new Map<string, number>();
    for (const line of trace) counts.set(line.split(' ')[0] ?? '', (counts.get(line.split(' ')[0] ?? '') ?? 0) + 1);
    console.info(`${steps} steps: ${[...counts].map(([what, count]) => `${count} ${what}`).join(', ')}`);
  },
);
