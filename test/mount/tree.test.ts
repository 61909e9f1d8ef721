/** What every tree keeps, and what the filter adds to the folder behind: nothing, where that has neither disks nor images. */
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BlockCache } from '../../src/backup/read/block-cache.ts';
import { noKeys } from '../../src/backup/crypto/key-ring.ts';
import { systemErrorCode } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { randomGuid } from '../../src/bytes/guid.ts';
import { Statistics } from '../../src/fill/statistics.ts';
import { Filter } from '../../src/mount/filter.ts';
import { FolderTree } from '../../src/mount/folder-tree.ts';
import type { Place } from '../../src/mount/place.ts';
import { ownRights } from '../../src/mount/rights.ts';
import type { ChangeableTree } from '../../src/mount/tree.ts';
import { OpenReplacements } from '../../src/replacement/replacements.ts';
import { TempFolder } from '../temp-folder.ts';

let temp: TempFolder;
let behind: string;
let replacements: OpenReplacements;

beforeEach(() => {
  temp = new TempFolder();
  behind = temp.file('behind');
  fs.mkdirSync(path.join(behind, 'folder'), { recursive: true });
  replacements = new OpenReplacements(behind);
  fs.writeFileSync(path.join(behind, 'file'), 'contents', { mode: 0o640 });
  fs.writeFileSync(path.join(behind, 'folder', 'inner'), 'more');
  fs.symlinkSync('folder/inner', path.join(behind, 'link'));
  fs.linkSync(path.join(behind, 'file'), path.join(behind, 'again'));
});
afterEach(() => {
  replacements.close();
  temp.remove();
});

const trees: Readonly<Record<string, () => ChangeableTree<Place>>> = {
  'the folder behind': () => new FolderTree(behind, ownRights),
  'the filter over it': () =>
    new Filter(
      {
        folder: behind,
        allowPaths: [],
        trustPluginFiles: true,
        present: undefined,
        write: undefined,
        mountId: randomGuid(),
        keys: noKeys,
      },
      {
        statistics: new Statistics(),
        cache: BlockCache.ofOneThread(MiB, MiB),
        log: () => undefined,
        replacements,
      },
    ),
};

describe.each(Object.entries(trees))('a tree: %s', (_, open) => {
  function withTree(use: (tree: ChangeableTree<Place>) => void): void {
    const tree = open();
    try {
      use(tree);
    } finally {
      tree.close();
    }
  }
  const codeOf = (action: () => void): string | undefined => {
    try {
      action();
    } catch (error) {
      return systemErrorCode(error);
    }
    return undefined;
  };

  it('lists what readdir lists, with the types and numbers that attributes tell', () =>
    withTree((tree) => {
      const listed = [...tree.list(tree.root)];
      expect(listed.map(({ name }) => name).sort()).toEqual(fs.readdirSync(behind).sort());
      for (const { name, type, inode } of listed) {
        const found = tree.attributes(tree.child(tree.root, name));
        expect([name, found.mode & fs.constants.S_IFMT, found.inode]).toEqual([name, type, inode]);
      }
    }));

  it('tells attributes as lstat does', () =>
    withTree((tree) => {
      for (const name of fs.readdirSync(behind)) {
        const stat = fs.lstatSync(path.join(behind, name), { bigint: true });
        const found = tree.attributes(tree.child(tree.root, name));
        expect([found.mode, found.links, found.sizeBytes, found.modifiedNs]).toEqual([
          Number(stat.mode),
          Number(stat.nlink),
          Number(stat.size),
          stat.mtimeNs,
        ]);
      }
    }));

  it('reads, writes, cuts and renames the very files behind', () =>
    withTree((tree) => {
      const file = tree.open(tree.child(tree.root, 'file'), fs.constants.O_RDWR);
      expect(file.write(Buffer.from('C'), 0)).toBe(1);
      file.close();
      expect(fs.readFileSync(path.join(behind, 'again'), 'utf8')).toBe('Contents');
      const folder = tree.child(tree.root, 'folder');
      tree.truncate(tree.child(folder, 'inner'), 2);
      tree.rename(tree.child(folder, 'inner'), tree.child(tree.root, 'outer'));
      expect(fs.readFileSync(path.join(behind, 'outer'), 'utf8')).toBe('mo');
      tree.create(tree.child(folder, 'made'), 0o600).close();
      tree.makeLink(tree.child(tree.root, 'outer'), tree.child(folder, 'linked'));
      tree.makeSymlink(tree.child(folder, 'there'), 'made');
      expect(fs.readdirSync(path.join(behind, 'folder')).sort()).toEqual(['linked', 'made', 'there']);
      expect(tree.readLink(tree.child(folder, 'there'))).toBe('made');
    }));

  it('answers a name that nothing has with ENOENT, and a removed one as well', () =>
    withTree((tree) => {
      expect(codeOf(() => tree.attributes(tree.child(tree.root, 'none')))).toBe('ENOENT');
      const inner = tree.child(tree.child(tree.root, 'folder'), 'inner');
      tree.removeFile(inner);
      tree.removeFolder(tree.child(tree.root, 'folder'));
      expect(codeOf(() => tree.attributes(inner))).toBe('ENOENT');
      expect(codeOf(() => tree.open(inner, fs.constants.O_RDONLY))).toBe('ENOENT');
    }));

  it('serves the folder under whatever name it has by now', () =>
    withTree((tree) => {
      fs.renameSync(behind, temp.file('elsewhere'));
      expect(tree.attributes(tree.child(tree.root, 'file')).sizeBytes).toBe(8);
      fs.renameSync(temp.file('elsewhere'), behind);
    }));
});
