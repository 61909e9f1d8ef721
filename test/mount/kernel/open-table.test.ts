/** Which handle of a file is the only one that goes through this process: a model of opens and closes over several threads. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { OpenTable } from '../../../src/mount/kernel/open-table.ts';
import { seededTest, soak } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';

const noFile = { path: '', part: '', stamp: [0, 0], counted: 0 } as const;

describe('the table of open files', () => {
  it('knows of each handle whether another of its file is open, of more files than are counted apart', () => {
    const random = seededTest('handles of many files');
    const first = new OpenTable(undefined, 1);
    const tables = [first, new OpenTable(first.buffer, 2)];
    const open: Array<{ slot: number; serial: number; node: number; kind: 'native' | 'direct' | 'folder' }> = [];
    for (let step = 0; step < (soak ? 20_000 : 1500); step++) {
      if (open.length < 700 || random.oneIn(2)) {
        const node = random.oneIn(2) ? random.below(40) : 2 ** 40 + random.below(900);
        const kind = random.oneIn(8) ? 'folder' : 'native';
        const { slot, serial } = random.pick(tables).add({ kind, fd: -1, node, ...noFile });
        const others = open.filter((other) => other.node === node && other.kind === 'native').length;
        expect(random.pick(tables).isOnlyNative(slot), `slot ${slot} of node ${node}`).toBe(others === 0);
        const isDirect = kind === 'native' && others === 0 && random.oneIn(2);
        if (isDirect) random.pick(tables).becomeDirect(slot);
        expect(random.pick(tables).get(slot, serial)).toMatchObject({ node, kind: isDirect ? 'direct' : kind });
        open.push({ slot, serial, node, kind: isDirect ? 'direct' : kind });
      } else {
        const [closed] = open.splice(random.below(open.length), 1);
        if (closed !== undefined) random.pick(tables).remove(closed.slot, closed.serial);
      }
      expect(first.open).toBe(open.length);
    }
  });

  it('knows whether a disk is open by its plugin file, whatever it is called', () => {
    using folder = new TempFolder();
    const table = new OpenTable(undefined, 1);
    const file = folder.write('plugin', 'text');
    const fd = fs.openSync(file, 'r');
    const stat = fs.fstatSync(fd, { bigint: true });
    expect(table.isOpenFile(stat)).toBe(false);
    table.add({ kind: 'native', fd, node: 5, ...noFile });
    fs.renameSync(file, folder.file('renamed'));
    expect(table.isOpenFile(fs.statSync(folder.file('renamed'), { bigint: true }))).toBe(true);
    expect(table.isOpenFile(fs.statSync(folder.path, { bigint: true }))).toBe(false);
    table.close();
  });
});
