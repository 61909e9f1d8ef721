/** A disk file that a plugin file shows as another disk is not replaced, wherever the plugin file lies. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { assertMayPut } from '../../src/mounts/output-place.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { registeredPointers } from '../../src/plugin/pointer-registry.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

function folderWithDisk(): { folder: TempFolder; source: string } {
  const folder = new TempFolder();
  onTestFinished(() => folder.remove());
  for (const name of ['disks', 'machines', 'away']) fs.mkdirSync(folder.file(name));
  return { folder, source: folder.write('disks/source.raw', new Seeded('a disk that is shown').bytes(MiB)) };
}

const replace = (place: string): void => assertMayPut(place, { makes: 'disk', force: true });

it('a disk file that nobody shows may be replaced', () => {
  const { source } = folderWithDisk();
  expect(() => replace(source)).not.toThrow();
});

it('one that a plugin file beside it shows is refused with its name', () => {
  const { folder, source } = folderWithDisk();
  const plugin = folder.file('disks/shown.vhdx');
  createPluginFile(source, plugin, {});
  expect(() => replace(source)).toThrow(/source\.raw: shown\.vhdx shows it as a disk/);
  fs.symlinkSync(source, folder.file('disks/link.raw'));
  expect(() => replace(folder.file('machines/../disks/source.raw'))).toThrow(/shown\.vhdx shows it/);
  fs.rmSync(plugin);
  expect(() => replace(source)).not.toThrow();
});

it('one that a plugin file elsewhere shows is refused: its folder knows of that one', () => {
  const { folder, source } = folderWithDisk();
  const plugin = folder.file('machines/shown.vmdk');
  createPluginFile(source, plugin, {});
  const known = registeredPointers(folder.file('disks'), () => true).map((line) => line.plugin);
  expect(known).toEqual([plugin]);
  expect(() => replace(source)).toThrow(new RegExp(`source\\.raw: ${plugin} shows it as a disk`));
  // Another disk of that folder is nobody's.
  const other = folder.write('disks/other.raw', new Uint8Array(MiB));
  expect(() => replace(other)).not.toThrow();
  fs.renameSync(plugin, folder.file(`away/${path.basename(plugin)}`));
  expect(() => replace(source)).not.toThrow();
});
