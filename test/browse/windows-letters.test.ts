/** Files of a Windows by its drive letters, as its registry has them; capitals and slashes as people write them; links as ntfs-3g makes them. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { GuestTree } from '../../src/browse/guest-tree.ts';
import { memoryDisk } from '../../src/disk/memory.ts';
import { filledHive, skipWithout } from '../guest/windows/hives.ts';
import { smallSystem, softwareLines, systemFile, withPartition } from '../guest/windows/machine.ts';
import { makeVolume } from '../filesystem/ntfs/made-volume.ts';
import { TempFolder } from '../temp-folder.ts';

const modified = new Date('2001-02-03T04:05:06.789Z');
/** Signature and start of the partition that `withPartition` makes, as MountedDevices has it. */
const ownPartition = 'ae,46,45,df,00,00,10,00,00,00,00,00';

it('C: is the volume of Windows, and further letters are what MountedDevices says', (context) => {
  skipWithout(context, ['hivexregedit']);
  using folder = new TempFolder();
  const { image } = makeVolume(context, folder, {
    files: {
      [systemFile]: filledHive([...smallSystem, `"\\\\DosDevices\\\\E:"=hex(3):${ownPartition}`]),
      'Windows/System32/config/SOFTWARE': filledHive(softwareLines),
      'Users/Alice/notes.txt': 'of Alice',
    },
    fill(mountpoint) {
      const notes = path.join(mountpoint, 'Users/Alice/notes.txt');
      fs.linkSync(notes, path.join(mountpoint, 'again.txt'));
      fs.symlinkSync('../Users/Alice/notes.txt', path.join(mountpoint, 'Windows/link.txt'));
      fs.utimesSync(notes, modified, modified);
    },
  });
  const tree = new GuestTree(memoryDisk(withPartition(fs.readFileSync(image))));
  expect(tree.warnings).toEqual([]);
  expect(tree.volumes).toMatchObject([{ name: 'partition 1', mountpoints: ['C:', 'E:'] }]);
  const read = (asked: string): string => {
    const { fileSystem, node } = tree.find(asked);
    const file = fileSystem.open(node);
    const bytes = Buffer.alloc(file.sizeBytes);
    file.read(bytes, 0);
    return bytes.toString();
  };
  for (const asked of [
    'C:\\Users\\Alice\\notes.txt',
    'c:/users/ALICE/Notes.TXT',
    'E:\\again.txt',
    '\\Users\\Alice\\..\\alice\\notes.txt',
  ])
    expect(read(asked), asked).toBe('of Alice');
  const { stat, path: shown } = tree.find('C:\\Users\\Alice\\notes.txt');
  expect(shown).toBe('C:\\Users\\Alice\\notes.txt');
  expect(stat).toMatchObject({
    type: 'file',
    sizeBytes: 8,
    links: 2,
    modifiedNs: BigInt(modified.getTime()) * 1_000_000n,
  });
  // Two letters of one volume are one place to look.
  expect(tree.roots().map(({ path: root }) => root)).toEqual(['C:']);
  expect(() => tree.find('D:\\x')).toThrow('D:\\x: no volume of the disk is D:');
  expect(tree.list(tree.find('C:\\Users'), (text) => expect.fail(text)).map(({ found }) => found.path)).toEqual([
    'C:\\Users\\Alice',
  ]);
});
