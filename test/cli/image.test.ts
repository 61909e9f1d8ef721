/** `veneer image create|info|verify|extract`, as a user meets them: what they print, and how they end. */
import fs from 'node:fs';
import { beforeAll, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { structuresOf } from '../backup/crafted-image.ts';
import { change, writeDisk } from '../mount/guest-disk.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { run, runOk, veneer, veneerOk, veneerRefuses } from './veneer.ts';

const sizeBytes = 100 * MiB;
let folder: TempFolder;
let raw: string;
let full: string;
let newest: string;

beforeAll(async () => {
  folder = new TempFolder();
  raw = folder.file('disk.raw');
  full = folder.file('vm.spf');
  newest = folder.file('vm.spi');
  writeDisk(raw, 'command line', sizeBytes);
  // Something in each tenth, for progress.
  const random = new Seeded('tenths');
  for (let tenth = 0; tenth < 10; tenth++) change(raw, tenth * 10 * MiB, random.bytes(4 * MiB));
  await veneerOk('image', 'create', raw, full);
  fs.copyFileSync(raw, folder.file('full.raw'));
  change(raw, 50 * MiB, random.bytes(100 * KiB));
  await veneerOk('image', 'create', '--parent', full, raw, newest);
  return () => folder.remove();
});

/** Copies of both images, to be damaged. */
function copies(name: string): { full: string; newest: string } {
  const at = folder.file(name);
  fs.mkdirSync(at);
  for (const image of ['vm.spf', 'vm.spi']) fs.copyFileSync(folder.file(image), `${at}/${image}`);
  return { full: `${at}/vm.spf`, newest: `${at}/vm.spi` };
}

it('create says what it made', async () => {
  const image = folder.file('said.spf');
  expect(await veneerOk('image', 'create', raw, image)).toMatch(
    /^\S+said\.spf: full image of 100 MiB, \d+ blocks in [\d.]+ MiB, \d+\.\d s\n$/,
  );
  const incremental = await veneerOk('image', 'create', '--parent', image, raw, folder.file('said.spi'));
  expect(incremental).toMatch(/said\.spi: incremental image of 100 MiB, 0 blocks in [\d.]+ [KM]iB, \d+\.\d s\n$/);
});

it.each(['zstd', 'lz4', 'none'])(
  'create takes the codec %s, a block size, and that the source is a volume',
  async (codec) => {
    const image = folder.file(`${codec}.spf`);
    await veneerOk(
      'image',
      'create',
      '--codec',
      codec,
      '--block-size',
      '256K',
      '--volume',
      '--threads',
      '1',
      raw,
      image,
    );
    const info = await veneerOk('image', 'info', image);
    expect(info).toMatch(new RegExp(`^blocks +256 KiB each, ${codec}$`, 'm'));
    expect(info).toMatch(/^disk +100 MiB \(104857600 bytes\), a volume, sectors of 512 bytes$/m);
  },
);

it('create reads only the changed ranges that it is told of', async () => {
  const ranges = folder.write('changed.json', JSON.stringify([{ offset: 50 * MiB, length: 64 * KiB }]));
  const image = folder.file('changed.spi');
  expect(await veneerOk('image', 'create', '--parent', full, '--changed', ranges, raw, image)).toContain(
    ' 1 blocks in ',
  );
});

it('info tells of the whole chain, for people and for programs', async () => {
  const text = await veneerOk('image', 'info', newest);
  expect(text).toMatch(/^disk +100 MiB \(104857600 bytes\), a disk, sectors of 512 bytes$/m);
  expect(text).toMatch(/^chain +[0-9a-f-]{36}, 2 images, [\d.]+ MiB stored$/m);
  expect(text).toMatch(/^ +1 +vm\.spi: incremental, .*, 2 data and 0 zero blocks/m);
  expect(text).toMatch(/^ +0 +vm\.spf: full, \d{4}-\d\d-\d\dT/m);
  const chain = JSON.parse(await veneerOk('image', 'info', '--json', newest)) as {
    diskBytes: number;
    images: Array<Record<string, unknown>>;
  };
  expect(chain.diskBytes).toBe(sizeBytes);
  expect(chain.images).toMatchObject([
    { file: 'vm.spi', kind: 'incremental', sequence: 1, blockBytes: 64 * KiB, dataBlocks: 2 },
    { file: 'vm.spf', kind: 'full', sequence: 0, fileSizeBytes: fs.statSync(full).size },
  ]);
});

it('verify finds a sound chain sound', async () => {
  expect(await veneerOk('image', 'verify', newest)).toMatch(/vm\.spi: sound \(2 images, \d+ blocks, [\d.]+ MiB\)\n$/);
});

it('verify names each damaged block, and where it lies on the disk; it goes on behind the first', async () => {
  const damaged = copies('damaged');
  const payloads = structuresOf(fs.readFileSync(damaged.full)).filter(({ kind }) => kind === 'payload');
  const hit = [payloads[3], payloads[40]];
  for (const structure of hit) change(damaged.full, (structure?.offset ?? 0) + 7, Buffer.from('damage'));
  const { status, stdout, stderr } = await veneer('image', 'verify', damaged.newest);
  expect(status).toBe(1);
  for (const { position = -1 } of hit.flatMap((structure) => structure ?? []))
    expect(stdout).toContain(`vm.spf: block ${position} (disk byte ${position * 64 * KiB}): checksum is 0x`);
  expect(stdout.trim().split('\n')).toHaveLength(2);
  expect(stderr).toMatch(/^veneer: \S+vm\.spi: 2 damaged \(2 images, .*\); the lines above name them$/m);
});

it('extract gives the source back, byte by byte and as sparse', async () => {
  for (const [image, source] of [
    [newest, raw],
    [full, folder.file('full.raw')],
  ] as const) {
    const out = folder.file('out.raw');
    expect(await veneerOk('image', 'extract', '--force', image, out)).toMatch(
      /out\.raw: 100 MiB, of which [\d.]+ MiB data\n$/,
    );
    await runOk('cmp', [source, out]);
    expect(fs.statSync(out).blocks * 512).toBeLessThan(60 * MiB);
  }
});

it('extract of a damaged image fails in one line, and leaves no file', async () => {
  const damaged = copies('extract damaged');
  const payload = structuresOf(fs.readFileSync(damaged.full)).filter(({ kind }) => kind === 'payload')[20];
  change(damaged.full, (payload?.offset ?? 0) + 7, Buffer.from('damage'));
  const { status, stdout, stderr } = await veneer('image', 'extract', damaged.newest, folder.file('never.raw'));
  expect([status, stdout]).toEqual([1, '']);
  expect(stderr.split('\n').filter((line) => line.startsWith('veneer: '))).toHaveLength(1);
  expect(stderr).toContain(`block ${payload?.position ?? -1} (disk byte `);
  expect(folder.names().filter((name) => name.startsWith('never'))).toEqual([]);
});

const refusals: ReadonlyArray<readonly [what: string, args: () => string[], says: RegExp]> = [
  [
    'a source that is missing',
    () => ['create', folder.file('no'), folder.file('x.spf')],
    /no: cannot be opened.*ENOENT/,
  ],
  [
    'a folder as source',
    () => ['create', folder.path, folder.file('x.spf')],
    /is neither a file nor a block device|EISDIR/,
  ],
  ['an image that is there', () => ['create', raw, full], /vm\.spf: exists already; .*--force/],
  ['the source as image', () => ['create', '--force', raw, raw], /is the source itself/],
  [
    'a parent that is missing',
    () => ['create', '--parent', folder.file('no.spf'), raw, folder.file('x.spi')],
    /no\.spf: .*ENOENT/,
  ],
  [
    'a parent elsewhere',
    () => ['create', '--parent', full, raw, '/tmp/veneer-elsewhere.spi'],
    /must lie in the folder of its parent/,
  ],
  [
    'changes without a parent',
    () => ['create', '--changed', folder.write('c.json', '[]'), raw, folder.file('x.spf')],
    /--changed needs --parent/,
  ],
  [
    'changes that are no ranges',
    () => ['create', '--parent', full, '--changed', folder.write('d.json', '{}'), raw, folder.file('x.spi')],
    /d\.json/,
  ],
  ['an unknown codec', () => ['create', '--codec', 'rar', raw, folder.file('x.spf')], /'rar' is invalid.*zstd/],
  [
    'a block size that is none',
    () => ['create', '--block-size', '5000', raw, folder.file('x.spf')],
    /5000: choose a power of two/,
  ],
  [
    'a size that is no number',
    () => ['create', '--block-size', 'big', raw, folder.file('x.spf')],
    /--block-size: "big" is not a size/,
  ],
  ['an image that is missing', () => ['info', folder.file('no.spf')], /no\.spf: the image cannot be opened.*ENOENT/],
  ['what is no image', () => ['info', folder.file('disk.raw')], /disk\.raw: magic .*is not a Veneer image/],
  ['what is no image, to verify', () => ['verify', folder.write('tiny', 'x')], /tiny: .*too few for an image/],
  ['an unfinished image', () => ['info', folder.write('u.spf.veneer-part', 'x')], /is an unfinished image/],
  ['a place that is taken', () => ['extract', full, raw], /disk\.raw: exists already; .*--force/],
  ['an image of the chain as a place', () => ['extract', '--force', newest, full], /is an image of this very chain/],
  ['an option that is unknown', () => ['info', '--loud', full], /unknown option '--loud'/],
  ['an argument too few', () => ['create', raw], /missing required argument 'image'/],
  ['an argument too many', () => ['info', full, full], /too many arguments/],
  ['a command that is unknown', () => ['explode'], /unknown command 'explode'/],
];

it.each(refusals)('refuses %s, in one line, and changes nothing', async (_what, args, says) => {
  const given = args();
  const before = folder.names();
  const sizes = [raw, full, newest].map((file) => fs.statSync(file).size);
  expect(await veneerRefuses('image', ...given)).toMatch(says);
  expect(folder.names()).toEqual(before);
  expect([raw, full, newest].map((file) => fs.statSync(file).size)).toEqual(sizes);
});

it.each([
  ['empty.raw', ''],
  ['damaged.vhdx', 'vhdxfile and nothing more'],
  ['damaged.qcow2', 'QFI\u00fb'],
])('a source that is no disk is refused by its name: %s', async (name, contents) => {
  const source = folder.write(name, contents);
  expect(await veneerRefuses('image', 'create', source, folder.file('never.spf'))).toContain(source);
  expect(fs.existsSync(folder.file('never.spf'))).toBe(false);
});

it('an image that lacks its parent says which, and what to do', async () => {
  const { full: parent, newest: child } = copies('no parent');
  fs.rmSync(parent);
  for (const command of ['info', 'verify'])
    expect(await veneerRefuses('image', command, child)).toMatch(
      /its parent "vm\.spf" .* is not in .*; put it back beside it$/,
    );
});

it('--debug prints the stack of an error, before or behind the command', async () => {
  for (const args of [
    ['--debug', 'image', 'info', folder.file('no.spf')],
    ['image', 'info', folder.file('no.spf'), '--debug'],
  ]) {
    const { status, stderr } = await veneer(...args);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^veneer: .*no\.spf: the image cannot be opened/);
    expect(stderr).toMatch(/\n +at .*src\/cli\/image\.ts/);
  }
});

it('help and version end well, and no command at all shows the help', async () => {
  expect(await veneerOk('--version')).toMatch(/^\d+\.\d+\.\d+\n$/);
  for (const args of [['--help'], ['image', '--help'], ['help', 'mount'], ['plugin', 'create', '--help']])
    expect(await veneerOk(...args)).toContain('Usage: veneer');
  const { status, stdout, stderr } = await veneer();
  expect(status).toBe(1);
  expect(stdout + stderr).toContain('Usage: veneer');
});

it('output that nobody reads any more ends the tool quietly', async () => {
  const tool = `${process.execPath} bin/veneer.mjs`;
  const { stderr } = await run('bash', [
    '-c',
    `${tool} image info --json "$1" | head -c 1 > /dev/null; exit 0`,
    'bash',
    newest,
  ]);
  expect(stderr).toBe('');
});
