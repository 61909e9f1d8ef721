/** The plugin file's own text: what it holds, what is refused, and how it is known. */
import { describe, expect, it } from 'vitest';
import { FormatError, UsageError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { planGeometry, synthesizeFiles, type FormatName } from '../../src/native/formats.ts';
import {
  encodePluginFile,
  maxPluginFileBytes,
  parsePluginFile,
  type PluginFile,
} from '../../src/plugin/plugin-file.ts';
import { Seeded } from '../seeded.ts';
import { markBytes, ownContent } from '../../src/source/own-content.ts';

const id = '3f1d54c6-08f1-4c07-9c0e-7d2a6f0a51b4';
const sizeBytes = 96 * MiB;

function contentsOf(format: FormatName, layout?: string): Parameters<typeof encodePluginFile>[0] {
  const facts = {
    sizeBytes,
    logicalSectorBytes: 512,
    physicalSectorBytes: 4096,
    identity: id,
    allocatedRuns: () => [{ firstUnit: 0, unitCount: 2, rank: 0 }],
  };
  return {
    id,
    source: { kind: 'chain', path: 'images/vm.spi', imageId: id, chainId: id, createdAt: '2026-01-02T03:04:05.678Z' },
    disk: { content: 'disk', sizeBytes },
    native: planGeometry(format, facts, layout === undefined ? {} : { layout }),
  };
}

const layouts = [
  ['vhdx', 'fixed'],
  ['vhdx', 'dynamic'],
  ['vhd', 'fixed'],
  ['vhd', 'dynamic'],
  ['vmdk', 'flat'],
  ['vmdk', 'sparse'],
  ['vdi', 'static'],
  ['vdi', 'dynamic'],
  ['qcow2', 'full'],
  ['qcow2', 'compact'],
  ['raw', 'flat'],
] as const satisfies ReadonlyArray<readonly [FormatName, string]>;

/** The text of a sound plugin file with one value changed. `undefined` takes the field away. */
function changed(path: readonly string[], value: unknown): Uint8Array {
  const plugin = JSON.parse(Buffer.from(encodePluginFile(contentsOf('vhdx', 'dynamic'))).toString()) as object;
  let at = plugin as Record<string, unknown>;
  for (const name of path.slice(0, -1)) at = at[name] as Record<string, unknown>;
  const last = path.at(-1) ?? '';
  if (value === undefined) Reflect.deleteProperty(at, last);
  else at[last] = value;
  return Buffer.from(JSON.stringify(plugin));
}

function refusal(bytes: Uint8Array): FormatError {
  try {
    parsePluginFile(bytes, 'vm.vhdx');
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
  return expect.fail('it was accepted');
}

describe('a plugin file', () => {
  it.each(layouts)('of %s (%s) reads as it was written', (format, layout) => {
    const contents = contentsOf(format, layout);
    const bytes = encodePluginFile(contents);
    expect(bytes.length).toBeLessThan(4096);
    expect(parsePluginFile(bytes, 'x')).toMatchObject(contents);
  });

  it.each(layouts)('of %s (%s) gives the same native file each time', (format, layout) => {
    const parsed = parsePluginFile(encodePluginFile(contentsOf(format, layout)), 'x');
    const sizes = (plugin: PluginFile): Array<readonly [string, number]> =>
      synthesizeFiles(plugin.native, 'vm.disk').map((file) => [file.name, file.map.sizeBytes] as const);
    expect(sizes(parsed)).toEqual(sizes(parsePluginFile(encodePluginFile(contentsOf(format, layout)), 'x')));
  });

  it('is a text that says what it is and what to do with it', () => {
    const text = Buffer.from(encodePluginFile(contentsOf('vhdx'))).toString();
    expect(text.startsWith('{\n  "veneer": "plugin file",\n')).toBe(true);
    expect(text).toContain('veneer mount');
    expect(text.endsWith('}\n')).toBe(true);
  });

  const wrong: ReadonlyArray<readonly [field: string, value: unknown]> = [
    ['veneer', 'plugin file of another kind'],
    ['version', 3],
    ['version', 0],
    ['version', undefined],
    ['version', '1'],
    ['about', 7],
    ['id', id.toUpperCase()],
    ['id', undefined],
    ['image', undefined],
    ['image', 'vm.spi'],
    ['image.path', ''],
    ['image.path', 5],
    ['image.path', undefined],
    ['image.imageId', 'not a GUID'],
    ['image.imageId', undefined],
    ['image.chainId', `${id}0`],
    ['image.createdAt', 'yesterday'],
    ['image.extra', 1],
    ['disk', null],
    ['disk.content', 'tape'],
    ['disk.sizeBytes', -512],
    ['disk.sizeBytes', 1.5],
    ['disk.sizeBytes', 2 ** 53],
    ['disk.sizeBytes', 1e300],
    ['disk.sizeBytes', '512'],
    ['native', []],
    ['native.format', 'iso'],
    ['native.layout', 'liquid'],
    ['native.sizeBytes', 2 ** 60],
    ['native.sizeBytes', undefined],
    ['native.payloadBlockBytes', true],
    ['native.fileWriteGuid', undefined],
    ['native.virtualDiskId', 'x'],
    ['native.allocation', 12],
    ['native.extra', 'x'],
    ['extra', {}],
  ];

  it.each(wrong)('with a wrong %s (%j) is refused, and the field is named', (field, value) => {
    const error = refusal(changed(field.split('.'), value));
    if (field === 'veneer') expect(error.data['field']).toBe('marker');
    else expect(error.data['field']).toBe(field);
    expect(error.message).toMatch(/^vm\.vhdx: /);
    expect(error.message).not.toContain('\n');
  });

  it('whose native file is of another size than its disk is refused', () => {
    for (const size of [sizeBytes + 512, sizeBytes - 512])
      expect(refusal(changed(['native', 'sizeBytes'], size)).data['field']).toBe('native.sizeBytes');
  });

  it('that is no JSON, or no object, is refused', () => {
    const text = Buffer.from(encodePluginFile(contentsOf('vhdx'))).toString();
    for (let length = text.length - 2; length > 60; length -= 97)
      expect(refusal(Buffer.from(text.slice(0, length))).data['field']).toBe('JSON');
    for (const other of ['', '{}', '[]', 'null', 'vhdxfile', '{"version":1}'])
      expect(refusal(Buffer.from(other)).data['field']).toBe('marker');
  });

  it('has at most 64 KiB: more is neither written nor read', () => {
    const contents = contentsOf('vhdx', 'dynamic');
    const noise = new Seeded('noise').bytes(60 * 1024).toString('base64');
    const native = { ...contents.native, allocation: noise } as typeof contents.native;
    expect(() => encodePluginFile({ ...contents, native })).toThrow(UsageError);
    const bytes = Buffer.concat([encodePluginFile(contents), Buffer.alloc(maxPluginFileBytes, ' ')]);
    expect(refusal(bytes).data['field']).toBe('size');
    parsePluginFile(bytes.subarray(0, maxPluginFileBytes), 'x');
  });

  it('is known by its first bytes, however they are spaced, and nothing else is', () => {
    const bytes = encodePluginFile(contentsOf('vhdx'));
    const compact = JSON.stringify(JSON.parse(Buffer.from(bytes).toString()));
    for (const text of [
      bytes,
      Buffer.from(compact),
      Buffer.from(`\n\t${compact}`),
      Buffer.from(compact.replaceAll(':', ' : ')),
    ])
      expect(ownContent(text.subarray(0, markBytes))).toBe('plugin file');
    for (const text of [
      '',
      '{',
      '{"veneer": "plugin',
      '{"veneer":"image"',
      'x{"veneer":"plugin file"',
      '[{"veneer":"plugin file"',
    ])
      expect(ownContent(Buffer.from(text))).toBeUndefined();
    expect(ownContent(Buffer.from('VENEERIM'))).toBe('image');
    expect(ownContent(Buffer.from('vhdxfile'))).toBeUndefined();
  });
});

describe('a plugin file of a native disk file', () => {
  const file = {
    kind: 'file',
    path: 'disk.qcow2',
    format: 'qcow2',
    sizeBytes: 196_624,
    modifiedNs: '1795824098123456789',
    stateSha256: 'ab'.repeat(32),
  } as const;

  /** With some fields of its source changed, as text. */
  function withSource(source: object, more: object = {}): Uint8Array {
    const written = JSON.parse(
      Buffer.from(encodePluginFile({ ...contentsOf('raw'), source: file })).toString(),
    ) as object;
    return Buffer.from(JSON.stringify({ ...written, ...more, source: { ...file, ...source } }));
  }

  it('is of version 2, and reads as it was written', () => {
    const contents = { ...contentsOf('vhdx'), source: file };
    const bytes = encodePluginFile(contents);
    expect(JSON.parse(Buffer.from(bytes).toString())).toMatchObject({ version: 2, source: file });
    expect(parsePluginFile(bytes, 'x')).toMatchObject(contents);
    expect(parsePluginFile(encodePluginFile(parsePluginFile(bytes, 'x')), 'x')).toEqual(parsePluginFile(bytes, 'x'));
  });

  it('of images is written as version 1, which older builds read, and read of either version alike', () => {
    const contents = contentsOf('vhdx');
    const { source } = contents;
    if (source.kind !== 'chain') return expect.fail('it is of an image');
    const { kind, ...image } = source;
    const written = JSON.parse(Buffer.from(encodePluginFile(contents)).toString()) as Record<string, unknown>;
    expect(written).toMatchObject({ version: 1, image });
    expect(written).not.toHaveProperty('source');
    const second: Record<string, unknown> = { ...written, version: 2, source: { kind, ...image } };
    delete second['image'];
    expect(parsePluginFile(Buffer.from(JSON.stringify(second)), 'x')).toEqual(
      parsePluginFile(encodePluginFile(contents), 'x'),
    );
  });

  const wrong: ReadonlyArray<readonly [field: string, source: object, more: object]> = [
    ['source.kind', { kind: 'tape' }, {}],
    ['source.path', { path: '' }, {}],
    ['source.path', { path: undefined }, {}],
    ['source.format', { format: 'iso' }, {}],
    ['source.sizeBytes', { sizeBytes: -1 }, {}],
    ['source.modifiedNs', { modifiedNs: 1 }, {}],
    ['source.modifiedNs', { modifiedNs: '9'.repeat(40) }, {}],
    ['source.stateSha256', { stateSha256: undefined }, {}],
    ['source.imageId', { imageId: id }, {}],
    ['image', {}, { image: {} }],
    ['source', {}, { version: 1, image: { path: 'x', imageId: id, chainId: id, createdAt: '2026-01-02T03:04:05Z' } }],
    ['replacement', {}, { replacement: 'sealed' }],
  ];

  it.each(wrong)('with a wrong %s (%j, %j) is refused, and the field is named', (field, source, more) => {
    expect(refusal(withSource(source, more)).data['field']).toBe(field);
  });

  it('may leave its format to the name and the content', () => {
    expect(parsePluginFile(withSource({ format: undefined }), 'x').source).not.toHaveProperty('format');
  });
});
