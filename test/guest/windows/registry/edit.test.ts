/** Edits of hives, and what hivex, chntpw and libregf read in them afterwards. */
import { expect, it } from 'vitest';
import { CapacityError, UnsupportedError } from '../../../../src/base/errors.ts';
import { HiveEditor } from '../../../../src/guest/windows/registry/edit.ts';
import { bytesInMemory, Hive, type Key } from '../../../../src/guest/windows/registry/hive.ts';
import { subkeyLeaves } from '../../../../src/guest/windows/registry/subkeys.ts';
import { baseBlock, checksumOf, valueTypes } from '../../../../src/guest/windows/registry/layout.ts';
import { changedRuns } from '../../../../src/filesystem/edit/changed-runs.ts';
import { seededTest } from '../../../seeded.ts';
import { emptyHive, exportDifference, filledHive, judgeHive, realHive, skipWithout } from '../hives.ts';

const programs = ['hivexregedit', 'reged', 'regfinfo'];

function keyOf(editor: HiveEditor, path: string): Key {
  const key = editor.hive.key(path);
  if (key === undefined) throw new Error(`${path} is not there`);
  return key;
}

it('a number is changed in its place: four bytes, and twelve of the base block', (context) => {
  skipWithout(context, programs);
  const before = filledHive(['[\\A]', '"Start"=dword:00000003', '"Other"=dword:00000007']);
  const editor = new HiveEditor('test', before);
  editor.setDword(keyOf(editor, 'a'), 'START', 0);
  const after = editor.commit();
  const changed = changedRuns(before, after).filter(({ offset }) => offset >= 512);
  expect(changed.map(({ length }) => length)).toEqual([1]);
  expect(exportDifference(before, after)).toEqual({
    gone: ['\\A "Start"=dword:00000003'],
    added: ['\\A "Start"=dword:00000000'],
  });
  const base = baseBlock.parse(after);
  expect(base.primarySequence).toBe(base.secondarySequence);
  expect(base.primarySequence).toBe(Math.max(...[4, 8].map((at) => before.readUInt32LE(at))) + 1);
  expect(base.checksum).toBe(checksumOf(after));
});

it('values and keys are added to a hive: hivex, chntpw and libregf read them, and all else is the same', (context) => {
  skipWithout(context, programs);
  const before = filledHive(['[\\A]', '"Start"=dword:00000003', '[\\A\\M]', '[\\B]']);
  const editor = new HiveEditor('test', before);
  const a = keyOf(editor, 'A');
  editor.setText(a, 'Path', 'system32\\drivers\\viostor.sys', valueTypes.expandText);
  editor.setLines(a, 'Lines', ['one', 'two']);
  editor.setDword(editor.ensurePath(a, 'Z\\Deep\\Deeper'), 'x', 5);
  editor.ensureKey(a, 'c');
  editor.setText(a, 'Path', 'shorter');
  const after = editor.commit();
  judgeHive(after);
  expect(exportDifference(before, after)).toEqual({
    gone: [],
    added: [
      '\\A "Lines"=hex(7):6f,00,6e,00,65,00,00,00,74,00,77,00,6f,00,00,00,00,00',
      '\\A "Path"=hex(1):73,00,68,00,6f,00,72,00,74,00,65,00,72,00,00,00',
      '\\A\\Z',
      '\\A\\Z\\Deep',
      '\\A\\Z\\Deep\\Deeper',
      '\\A\\Z\\Deep\\Deeper "x"=dword:00000005',
      '\\A\\c',
    ],
  });
  const names = [...(new Hive('test', bytesInMemory(after)).key('A')?.subkeys() ?? [])].map(({ name }) => name);
  expect(names).toEqual(['c', 'M', 'Z']);
});

it('a driver is added to a hive of Windows 7, which has 4.5 KiB to spare: the list of services is split', (context) => {
  skipWithout(context, programs);
  const before = realHive(context, 'SYSTEM');
  const editor = new HiveEditor('SYSTEM', before);
  const services = keyOf(editor, 'ControlSet001\\Services');
  const added: string[] = [];
  for (let index = 0; index < 12; index++) {
    editor.setDword(editor.ensureKey(services, `driver${index}`), 'Start', 0);
    added.push(
      `\\ControlSet001\\services\\driver${index}`,
      `\\ControlSet001\\services\\driver${index} "Start"=dword:00000000`,
    );
  }
  expect(subkeyLeaves(services).leaves.length).toBeGreaterThan(1);
  const after = editor.commit();
  expect(after).toHaveLength(before.length);
  judgeHive(after);
  const { gone, added: found } = exportDifference(before, after);
  expect(gone).toEqual([]);
  expect(found.sort()).toEqual(added.sort());
});

it('a full hive takes a new bin from the room behind it, and is refused where there is none', (context) => {
  skipWithout(context, programs);
  const fill = (editor: HiveEditor): void => {
    for (let index = 0; index < 300; index++)
      editor.setText(editor.hive.root(), `value${index}`, `text number ${index}`);
  };
  expect(() => fill(new HiveEditor('test', emptyHive()))).toThrow(CapacityError);
  const editor = new HiveEditor('test', emptyHive(4096, 64 * 1024));
  fill(editor);
  const after = editor.commit();
  expect(baseBlock.parse(after).binsLength).toBeGreaterThan(4096);
  judgeHive(after);
  const { gone, added } = exportDifference(emptyHive(), after);
  expect(gone).toEqual([]);
  expect(added).toHaveLength(300);
});

it('a thousand random edits leave what a list of them says, and a hive that foreign programs read', (context) => {
  skipWithout(context, programs);
  const random = seededTest('hive edits');
  const editor = new HiveEditor('test', emptyHive(4096, 1024 * 1024));
  const model = new Map<string, string>();
  for (let step = 0; step < 1000; step++) {
    const path = `key${random.below(40)}\\sub${random.below(60)}`;
    const key = editor.ensurePath(editor.hive.root(), path);
    const name = `v${random.below(5)}`;
    const text = 'x'.repeat(random.below(200));
    editor.setText(key, name, text);
    model.set(`${path}\\${name}`, text);
  }
  const after = editor.commit();
  judgeHive(after);
  const hive = new Hive('test', bytesInMemory(after));
  for (const [path, text] of model) {
    const cut = path.lastIndexOf('\\');
    expect(hive.key(path.slice(0, cut))?.text(path.slice(cut + 1))).toBe(text);
  }
  const keys = new Set(
    [...model.keys()].flatMap((path) => [path.split('\\')[0], path.slice(0, path.lastIndexOf('\\'))]),
  );
  expect(exportDifference(emptyHive(), after).added).toHaveLength(model.size + keys.size);
});

it('names that are not ASCII and data of many segments are refused', () => {
  const editor = new HiveEditor('test', emptyHive());
  expect(() => editor.ensureKey(editor.hive.root(), 'schlüssel')).toThrow(UnsupportedError);
  expect(() => editor.setValue(editor.hive.root(), 'big', valueTypes.binary, new Uint8Array(20_000))).toThrow(
    UnsupportedError,
  );
});
