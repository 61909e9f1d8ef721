import node from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as fs from '../../src/base/fs.ts';
import { bytesOfName, nameOfBytes, nameWithin } from '../../src/base/names.ts';
import { seededTest } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const latin1 = Buffer.from('caf\xe9', 'latin1');

describe('names that are bytes', () => {
  it('come back as the bytes they were, whatever these are', () => {
    const random = seededTest('names');
    for (let round = 0; round < 2000; round++) {
      const bytes = random.oneIn(2)
        ? random.bytes(random.below(40))
        : Buffer.from('\u{1F600}ä€x'.repeat(3)).subarray(random.below(5));
      const name = nameOfBytes(bytes);
      expect(bytesOfName(name)).toEqual(bytes);
      expect(nameWithin(Buffer.concat([Buffer.of(0x80), bytes, Buffer.of(0xbf)]), 1, 1 + bytes.length)).toBe(name);
    }
  });

  it('are ordinary strings where they are UTF-8, a byte order mark and the replacement character among them', () => {
    for (const name of ['plain', 'größe', '\u{1F600}', '\uFEFFmark', 'odd\uFFFD']) {
      expect(nameOfBytes(Buffer.from(name))).toBe(name);
      expect(bytesOfName(name)).toEqual(Buffer.from(name));
    }
  });

  it('stay apart where they differ in a byte that is no UTF-8', () => {
    expect(nameOfBytes(Buffer.of(0xe9))).not.toBe(nameOfBytes(Buffer.of(0xe8)));
  });
});

describe('the file system by such names', () => {
  it('lists, opens, links, renames and removes a file whose name is no UTF-8', () => {
    using folder = new TempFolder();
    const at = Buffer.concat([Buffer.from(`${folder.path}/`), latin1]);
    node.writeFileSync(at, 'contents');
    const [name = ''] = fs.readdirSync(folder.path);
    expect(bytesOfName(name)).toEqual(latin1);
    expect(fs.readdirSync(folder.path, { withFileTypes: true }).map((entry) => [entry.name, entry.isFile()])).toEqual([
      [name, true],
    ]);
    const path = folder.file(name);
    expect(fs.readFileSync(path, 'utf8')).toBe('contents');
    expect(fs.realpathSync(path)).toBe(path);
    const fd = fs.openSync(path, 'r');
    expect(fs.readlinkSync(`/proc/self/fd/${fd}`)).toBe(path);
    fs.closeSync(fd);
    fs.renameSync(path, `${path}2`);
    expect(node.readdirSync(folder.path, 'buffer')).toEqual([Buffer.concat([latin1, Buffer.from('2')])]);
    fs.rmSync(`${path}2`);
    expect(fs.existsSync(`${path}2`)).toBe(false);
  });
});
