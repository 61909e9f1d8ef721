/** Which replacement belongs to a plugin file: a matter of files, and not of names. */
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { FormatError, SeveralNamesError, UnavailableError, UsageError } from '../../src/base/errors.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { markOf } from '../../src/replacement/disk-signals.ts';
import { Replacement, type SharedReplacement } from '../../src/replacement/replacement.ts';
import { OpenReplacements, type AskedReplacement } from '../../src/replacement/replacements.ts';
import { thrownBy } from '../backup/image-holds.ts';
import { TempFolder } from '../temp-folder.ts';
import { otherBoots, placeOf, pluginText } from './kept-file.ts';

const baseBytes = 2 * unitBytes;
const base = { sizeBytes: baseBytes, read: (target: Uint8Array) => void target.fill(0xba) };

/** A folder that is served, its open replacements, and descriptors of plugin files. */
class Served implements Disposable {
  readonly folder = new TempFolder();
  open = new OpenReplacements(this.folder.path);
  readonly #fds: number[] = [];

  plugin(name: string): number {
    if (!fs.existsSync(this.folder.file(name))) this.folder.write(name, pluginText());
    const fd = fs.openSync(this.folder.file(name), 'r');
    this.#fds.push(fd);
    return fd;
  }

  ask(pluginFd: number, name: string, more: Partial<AskedReplacement> = {}): SharedReplacement | undefined {
    const asked = {
      place: placeOf(this.folder.file(name), baseBytes),
      pluginName: name,
      fileName: name,
      index: 0,
      holdsName: false,
      discard: false,
      makes: true,
      ...more,
      pluginFd,
    };
    return this.open.acquire(asked, () => {
      throw new Error('nothing here is sealed');
    });
  }

  /** As the next mount of the folder. */
  again(): void {
    this.open.close();
    this.open = new OpenReplacements(this.folder.path);
  }

  [Symbol.dispose](): void {
    this.open.close();
    for (const fd of this.#fds) fs.closeSync(fd);
    this.folder.remove();
  }
}

function write(parts: SharedReplacement | undefined, fill: number): void {
  if (parts === undefined) throw new Error('there is no replacement');
  new Replacement(parts, base).write(Buffer.alloc(10, fill), 0);
}

function firstByte(parts: SharedReplacement | undefined): number | undefined {
  if (parts === undefined) return undefined;
  const byte = new Uint8Array(1);
  new Replacement(parts, base).read(byte, 0);
  return byte[0];
}

describe('the replacement of a plugin file', () => {
  it('is made when it is to be written to, and not to be looked at', () => {
    using served = new Served();
    const fd = served.plugin('disk.raw');
    expect(served.ask(fd, 'disk.raw', { makes: false })).toBeUndefined();
    expect(served.folder.names()).toEqual(['disk.raw']);
    const mark = markOf(fs.fstatSync(fd, { bigint: true }));
    expect(served.open.signals.isNoted(mark)).toBe(false);
    const parts = served.ask(fd, 'disk.raw');
    expect([served.open.signals.isNoted(mark), served.open.signals.made]).toEqual([true, 1]);
    write(parts, 7);
    expect(served.ask(fd, 'disk.raw', { makes: false })).toBe(parts);
    served.again();
    expect(firstByte(served.ask(fd, 'disk.raw', { makes: false }))).toBe(7);
  });

  it('of two plugin files with one id is two disks, each beside its own', () => {
    using served = new Served();
    const [a, b] = [served.plugin('a.raw'), served.plugin('b.raw')];
    write(served.ask(a, 'a.raw'), 1);
    write(served.ask(b, 'b.raw'), 2);
    expect([firstByte(served.ask(a, 'a.raw')), firstByte(served.ask(b, 'b.raw'))]).toEqual([1, 2]);
    expect(served.ask(a, 'a.raw', { index: 1, fileName: 'a-flat.raw' })).not.toBe(served.ask(a, 'a.raw'));
    expect(served.folder.names()).toContain('a-flat.raw.replacement-map');
  });

  it('is the same under a further descriptor, and where the plugin file was written anew under its name', () => {
    using served = new Served();
    const first = served.ask(served.plugin('disk.raw'), 'disk.raw');
    expect(served.ask(served.plugin('disk.raw'), 'disk.raw')).toBe(first);
    fs.renameSync(served.folder.write('new', pluginText()), served.folder.file('disk.raw'));
    expect(served.ask(served.plugin('disk.raw'), 'disk.raw')).toBe(first);
  });

  it('stays its own when the plugin file is moved, and goes on without a name when all is removed', () => {
    using served = new Served();
    const fd = served.plugin('disk.raw');
    const parts = served.ask(fd, 'disk.raw');
    fs.renameSync(served.folder.file('disk.raw'), served.folder.file('moved.raw'));
    expect(served.ask(fd, 'disk.raw')).toBe(parts);
    for (const name of served.folder.names()) fs.rmSync(served.folder.file(name));
    expect(served.ask(fd, 'disk.raw')).toBe(parts);
    expect(served.folder.names()).toEqual([]);
  });

  it('is made where the plugin file is by now, under the name that it has there', () => {
    using served = new Served();
    const fd = served.plugin('disk.raw');
    fs.mkdirSync(served.folder.file('deep'));
    fs.renameSync(served.folder.file('disk.raw'), served.folder.file('deep/moved.raw'));
    expect(served.ask(fd, 'disk.raw', { holdsName: true, makes: false })).toBeUndefined();
    expect(thrownBy(() => served.ask(fd, 'disk.raw', { holdsName: true }))).toBeInstanceOf(UnavailableError);
    served.ask(fd, 'disk.raw');
    expect(fs.readdirSync(served.folder.file('deep')).sort()).toEqual([
      'moved.raw',
      'moved.raw.replacement',
      'moved.raw.replacement-map',
    ]);
  });

  it('is nowhere where the plugin file was removed or moved out of the folder', () => {
    using served = new Served();
    using outside = new TempFolder();
    const [removed, moved] = [served.plugin('a.raw'), served.plugin('b.raw')];
    fs.rmSync(served.folder.file('a.raw'));
    fs.renameSync(served.folder.file('b.raw'), outside.file('b.raw'));
    for (const [fd, name] of [
      [removed, 'a.raw'],
      [moved, 'b.raw'],
    ] as const) {
      expect(served.ask(fd, name, { makes: false })).toBeUndefined();
      expect(thrownBy(() => served.ask(fd, name))).toBeInstanceOf(UnavailableError);
    }
    expect([...served.folder.names(), ...outside.names()]).toEqual(['b.raw']);
  });

  it('is none’s of a plugin file with several names, of which a record is no further one', () => {
    using served = new Served();
    const fd = served.plugin('disk.raw');
    fs.linkSync(served.folder.file('disk.raw'), served.folder.file('disk.raw.finalized'));
    fs.linkSync(served.folder.file('disk.raw'), served.folder.file('other.raw'));
    expect(thrownBy(() => served.ask(fd, 'disk.raw'))).toBeInstanceOf(SeveralNamesError);
    fs.rmSync(served.folder.file('other.raw'));
    expect(served.ask(fd, 'disk.raw')).toBeDefined();
  });

  it('of another id in its place is refused, and so is one whose data was replaced while it was open', () => {
    using served = new Served();
    const fd = served.plugin('disk.raw');
    served.ask(fd, 'disk.raw');
    const other = { ...placeOf(served.folder.file('disk.raw'), baseBytes), pluginId: otherBoots[0] };
    expect(thrownBy(() => served.ask(fd, 'disk.raw', { place: other }))).toBeInstanceOf(FormatError);
    fs.renameSync(served.folder.write('new', pluginText()), served.folder.file('disk.raw'));
    const data = served.folder.file('disk.raw.replacement');
    fs.copyFileSync(data, `${data}.copy`);
    fs.renameSync(`${data}.copy`, data);
    expect(() => served.ask(served.plugin('disk.raw'), 'disk.raw')).toThrow('was replaced while it was in use');
  });
});

describe('what is thrown away at the end', () => {
  it('lies apart from what is kept, and is gone when the mount ends', () => {
    using served = new Served();
    const fd = served.plugin('disk.raw');
    write(served.ask(fd, 'disk.raw'), 1);
    served.again();
    write(served.ask(fd, 'disk.raw', { discard: true }), 2);
    expect(served.folder.names()).toContain('disk.raw.discard.replacement-map');
    served.again();
    expect(served.folder.names()).toEqual(['disk.raw', 'disk.raw.replacement', 'disk.raw.replacement-map']);
    expect(firstByte(served.ask(fd, 'disk.raw'))).toBe(1);
  });

  it('of a mount that died is not read by the next', () => {
    using served = new Served();
    const fd = served.plugin('disk.raw');
    write(served.ask(fd, 'disk.raw', { discard: true }), 2);
    const names = served.folder.names().filter((name) => name.includes('.discard'));
    const contents = names.map(
      (name) => [served.folder.file(name), fs.readFileSync(served.folder.file(name))] as const,
    );
    served.again();
    for (const [file, bytes] of contents) fs.writeFileSync(file, bytes, { mode: 0o600 });
    expect(firstByte(served.ask(fd, 'disk.raw', { discard: true }))).toBe(0xba);
  });

  it('does not take the place of a file that has its name', () => {
    using served = new Served();
    const fd = served.plugin('disk.raw');
    served.folder.write('disk.raw.discard', 'precious');
    expect(thrownBy(() => served.ask(fd, 'disk.raw', { discard: true }))).toBeInstanceOf(UsageError);
    expect(served.folder.names()).toEqual(['disk.raw', 'disk.raw.discard']);
  });
});

it('when the mount has ended nothing is opened, and what was written is on disk', () => {
  using served = new Served();
  const fd = served.plugin('disk.raw');
  const parts = served.ask(fd, 'disk.raw');
  write(parts, 9);
  served.open.close();
  served.open.close();
  expect(thrownBy(() => served.ask(fd, 'disk.raw'))).toBeInstanceOf(UnavailableError);
  expect(fs.readFileSync(path.join(served.folder.path, 'disk.raw.replacement'))[0]).toBe(9);
  // The durable bits tell of it.
  const map = fs.readFileSync(served.folder.file('disk.raw.replacement-map'));
  expect(map[3 * 4096]).toBe(3);
});
