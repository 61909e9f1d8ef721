/** A plugin file that is changed: what was read is what is written over, and nothing else ever is. */
import fs from 'node:fs';
import { expect, it, onTestFinished } from 'vitest';
import { UnavailableError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { planGeometry } from '../../src/native/formats.ts';
import { PluginEdit } from '../../src/plugin/plugin-edit.ts';
import { encodePluginFile, readPluginFile } from '../../src/plugin/plugin-file.ts';
import { TempFolder } from '../temp-folder.ts';

const id = '3f1d54c6-08f1-4c07-9c0e-7d2a6f0a51b4';

function text(createdAt: string): Uint8Array {
  return encodePluginFile({
    id,
    source: { kind: 'chain', path: 'vm.spi', imageId: id, chainId: id, createdAt },
    disk: { content: 'disk', sizeBytes: MiB },
    native: planGeometry(
      'raw',
      {
        sizeBytes: MiB,
        logicalSectorBytes: 512,
        physicalSectorBytes: 4096,
        identity: id,
        allocatedRuns: () => [],
      },
      {},
    ),
  });
}

const [first, second] = [text('2026-01-02T03:04:05.678Z'), text('2027-01-02T03:04:05.678Z')];

function pluginFile(): { folder: TempFolder; file: string } {
  const folder = new TempFolder();
  onTestFinished(() => folder.remove());
  return { folder, file: folder.write('vm.raw', first) };
}

function opened(file: string, purpose: 'to look' | 'to change'): PluginEdit {
  const edit = PluginEdit.open(file, purpose);
  onTestFinished(() => edit.close());
  return edit;
}

it('what is written takes its place, for its owner as before', () => {
  const { file } = pluginFile();
  fs.chmodSync(file, 0o640);
  const edit = opened(file, 'to change');
  edit.write({ ...edit.plugin, write: 'discard' });
  expect(readPluginFile(file).write).toBe('discard');
  expect((fs.statSync(file).mode & 0o777).toString(8)).toBe('640');
});

const meanwhile: ReadonlyArray<readonly [what: string, change: (file: string) => void]> = [
  [
    'replaced by another',
    (file) => {
      fs.writeFileSync(`${file}.new`, second);
      fs.renameSync(`${file}.new`, file);
    },
  ],
  ['written over', (file) => fs.writeFileSync(file, second)],
  ['removed', (file) => fs.rmSync(file)],
  [
    'replaced by one that reads the same',
    (file) => {
      fs.writeFileSync(`${file}.new`, first);
      fs.renameSync(`${file}.new`, file);
    },
  ],
];

it.each(meanwhile)('a plugin file that was %s meanwhile is left as it is', (_, change) => {
  const { folder, file } = pluginFile();
  const edit = opened(file, 'to change');
  change(file);
  const [left, names] = [contentsOf(file), fs.readdirSync(folder.path)];
  expect(() => edit.requireUnchanged()).toThrow(UnavailableError);
  expect(() => edit.write({ ...edit.plugin, write: 'none' })).toThrow(/was changed by somebody else meanwhile/);
  expect(contentsOf(file)).toEqual(left);
  expect(fs.readdirSync(folder.path)).toEqual(names);
});

function contentsOf(file: string): Buffer | undefined {
  return fs.existsSync(file) ? fs.readFileSync(file) : undefined;
}

it('of two that change one plugin file, the second is refused until the first has ended; who looks is let in', () => {
  const { file } = pluginFile();
  const edit = PluginEdit.open(file, 'to change');
  expect(() => PluginEdit.open(file, 'to change')).toThrow(/is locked by another process/);
  expect(opened(file, 'to look').plugin.id).toBe(id);
  edit.close();
  edit.close();
  expect(opened(file, 'to change').plugin.id).toBe(id);
});

it('who changes one must read anew before changing it again', () => {
  const { file } = pluginFile();
  const edit = opened(file, 'to change');
  edit.write({ ...edit.plugin, write: 'discard' });
  expect(() => edit.write({ ...edit.plugin, write: 'none' })).toThrow(UnavailableError);
  expect(readPluginFile(file).write).toBe('discard');
});
