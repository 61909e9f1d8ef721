/** What a source or a parent is: its content and its name must agree, or the header of its child or the user says it. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UnsupportedError, UsageError, VeneerError } from '../../src/base/errors.ts';
import { KiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { openSource } from '../../src/source/open-source.ts';
import { probe } from '../../src/source/probe.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { writeGolden } from '../native/golden.ts';
import { runProgram } from '../native/judges.ts';

const sizeBytes = 2 * MiB;
let folder: TempFolder;
let raw: Buffer;

beforeAll(() => {
  folder = new TempFolder();
  writeGolden(folder.file('disk.raw'), sizeBytes, new Seeded('probe'));
  raw = fs.readFileSync(folder.file('disk.raw'));
});
afterAll(() => folder.remove());

function qemuImg(...args: string[]): void {
  runProgram('qemu-img', args);
}

function digestOf(disk: Disk): string {
  try {
    const bytes = Buffer.alloc(sizeBytes);
    disk.read(bytes, 0);
    return createHash('sha256').update(bytes).digest('hex');
  } finally {
    disk.close();
  }
}

function rawDigest(): string {
  return createHash('sha256').update(raw).digest('hex');
}

function refusalOf(file: string, format?: string): VeneerError {
  try {
    openSource(file, format).close();
  } catch (error) {
    if (error instanceof VeneerError) {
      expect(error.message).not.toContain('\n');
      return error;
    }
    throw error;
  }
  return expect.fail(`${path.basename(file)} was opened`);
}

/** QEMU's formats and options, what we call them, and the extensions that agree. */
const readable: readonly (readonly [what: string, driver: string, options: string, format: string, string[]])[] = [
  ['qcow2', 'qcow2', '', 'qcow2', ['qcow2']],
  ['qcow2, version 2', 'qcow2', 'compat=0.10', 'qcow2', ['qcow2', 'QCOW2']],
  ['VHDX', 'vhdx', '', 'vhdx', ['vhdx', 'avhdx', 'AVHDX']],
  ['fixed VHD', 'vpc', 'subformat=fixed,force_size=on', 'vhd', ['vhd', 'avhd']],
  ['dynamic VHD', 'vpc', 'subformat=dynamic,force_size=on', 'vhd', ['vhd', 'avhd']],
  ['VDI', 'vdi', '', 'vdi', ['vdi']],
  ['QED', 'qed', '', 'qed', ['qed', 'QED']],
  ['sparse VMDK', 'vmdk', '', 'vmdk', ['vmdk']],
  ['flat VMDK', 'vmdk', 'subformat=monolithicFlat', 'vmdk', ['vmdk']],
  ['stream-optimized VMDK', 'vmdk', 'subformat=streamOptimized', 'vmdk', ['vmdk']],
];
/** Names that tell no container. */
const rawNames = ['x.img', 'x.raw', 'x.bin', 'x', 'x.qcow'];

describe.each(readable)('a %s file', (_what, driver, options, format, extensions) => {
  let place: TempFolder;
  let made: string;

  beforeAll(() => {
    place = new TempFolder();
    made = place.file('made');
    const more = options === '' ? [] : ['-o', options];
    qemuImg('convert', '-f', 'raw', '-O', driver, ...more, folder.file('disk.raw'), made);
  });
  afterAll(() => place.remove());

  function named(name: string): string {
    const file = place.file(name);
    fs.copyFileSync(made, file);
    return file;
  }

  it('is read where its name says so', () => {
    for (const extension of extensions) expect(digestOf(openSource(named(`vm.${extension}`)))).toBe(rawDigest());
  });

  it('is refused under a name that says nothing, with both ways to insist, which both work', () => {
    for (const name of rawNames) {
      const file = named(name);
      const { message } = refusalOf(file);
      expect(message).toContain(file);
      expect(message).toContain(`--source-format ${format}`);
      expect(message).toContain('--source-format raw');
      expect(digestOf(openSource(file, format))).toBe(rawDigest());
      const asRaw = openSource(file, 'raw');
      expect(asRaw.sizeBytes).toBe(fs.statSync(file).size);
      asRaw.close();
    }
  });

  it('is refused under the name of another container', () => {
    for (const other of ['qcow2', 'vhdx', 'vhd', 'vdi', 'vmdk'].filter((name) => name !== format)) {
      const { message } = refusalOf(named(`vm.${other}`));
      expect(message).toContain(`is called a ${other} file`);
      expect(message).toContain(`--source-format ${format}`);
    }
  });
});

/** Contents that are never a disk. */
const unreadable: readonly (readonly [what: string, contents: () => Uint8Array, says: RegExp])[] = [
  ['qcow of version 1', () => bytes('QFI\xfb\0\0\0\x01'), /version 1.*qemu-img/],
  ['Parallels', () => bytes('WithoutFreeSpace'), /Parallels/],
  ['Parallels 2', () => bytes('WithouFreSpacExt'), /Parallels/],
  ['SESparse', () => bytes('\xbe\xba\xfe\xca\0\0\0\0'), /SESparse/],
  ['COWD', () => bytes('COWD'), /ESXi/],
  ['E01', () => bytes('EVF\x09\r\n\xff\0\x01'), /ewfmount/],
  ['VMA', () => bytes('VMA\0\0\0\0\x01'), /vma extract/],
  ['partclone', () => bytes('partclone-image\0'), /partclone/],
  ['gzip', () => piped('gzip', ['-c']), /gzip -d/],
  ['xz', () => piped('xz', ['-0c']), /xz -d/],
  ['lzma', () => piped('xz', ['-0c', '--format=lzma', '--lzma1=preset=6']), /xz -d/],
  ['zstd', () => piped('zstd', ['-c']), /zstd -d/],
  ['bzip2', () => bytes('BZh91AY&SY'), /bzip2 -d/],
  ['lzop', () => bytes('\x89LZO\0\r\n\x1a\n'), /lzop -d/],
  ['lz4', () => bytes('\x04\x22\x4d\x18'), /lz4 -d/],
  ['ZIP', () => bytes('PK\x03\x04'), /ZIP/],
  ['7z', () => bytes('7z\xbc\xaf\x27\x1c'), /7z/],
  ['WIM', () => bytes('MSWIM\0\0\0'), /WIM/],
  ['DMG', () => Buffer.concat([Buffer.alloc(4096, 1), bytes('koly', 512)]), /DMG/],
  ['tar', () => tarOf('disk.raw'), /tar archive/],
  ['OVA', () => tarOf('vm.ovf'), /OVA.*tar -xf/],
  ['XVA', () => tarOf('ova.xml'), /XenServer/],
  ['OVF', () => bytes('<?xml version="1.0"?>\n<Envelope/>'), /XML/],
  ['VMX', () => bytes('.encoding = "UTF-8"\nconfig.version = "8"\n'), /VMX/],
  ['RBD export', () => bytes('rbd image v2\n'), /rbd import/],
  ['the map of a replacement', () => bytes('VENEERMP'), /image its disk under the mount/],
];

function bytes(latin1: string, length = 4096): Buffer {
  const made = Buffer.alloc(length);
  made.write(latin1, 'latin1');
  return made;
}

function piped(program: string, args: readonly string[]): Buffer {
  const { stdout, status, error } = spawnSync(program, args, { input: raw.subarray(0, MiB), maxBuffer: 4 * MiB });
  if (error !== undefined || status !== 0) throw error ?? new Error(`${program}: status ${status ?? -1}`);
  return stdout;
}

function tarOf(name: string): Buffer {
  using place = new TempFolder();
  place.write(name, 'contents');
  runProgram('tar', ['-C', place.path, '-cf', place.file('made.tar'), name]);
  return fs.readFileSync(place.file('made.tar'));
}

describe.each(unreadable)('%s', (_what, contents, says) => {
  it.each(['x.img', 'x', 'x.qcow2'])('is refused by its name: %s', (name) => {
    using place = new TempFolder();
    const file = place.write(name, contents());
    const refusal = refusalOf(file);
    expect(refusal).toBeInstanceOf(UnsupportedError);
    expect(refusal.message).toMatch(says);
    openSource(file, 'raw').close();
  });
});

describe('bytes that are the disk itself', () => {
  const disks: readonly (readonly [what: string, contents: () => Uint8Array])[] = [
    ['with a partition table', () => raw],
    ['of zeros', () => Buffer.alloc(MiB)],
    ['of ISO 9660', () => Buffer.concat([Buffer.alloc(32 * KiB), bytes('\x01CD001\x01', 2048)])],
    ['of LUKS', () => bytes('LUKS\xba\xbe\0\x02', MiB)],
    ['of random bytes', () => new Seeded('random disk').bytes(MiB)],
    ['shorter than a sector', () => Buffer.from([0xeb])],
    ['of a file system', () => Buffer.concat([bytes('\xeb\x52\x90NTFS    '), Buffer.alloc(MiB)])],
  ];

  it.each(disks)('%s are read under a name that claims nothing, and refused under one that does', (_what, contents) => {
    using place = new TempFolder();
    for (const name of ['x.img', 'x.raw', 'x.bin', 'x']) openSource(place.write(name, contents())).close();
    for (const name of ['x.qcow2', 'x.vhd', 'x.avhdx', 'x.vdi', 'x.vmdk']) {
      const file = place.write(name, contents());
      const refusal = refusalOf(file);
      expect(refusal).toBeInstanceOf(UsageError);
      expect(refusal.message).toMatch(/is called a \w+ file, .*--source-format raw/);
      openSource(file, 'raw').close();
    }
  });

  it('are refused in the extent of a flat VMDK, which points to its descriptor', () => {
    using place = new TempFolder();
    const extent = place.write('vm-flat.vmdk', raw);
    expect(refusalOf(extent).message).toMatch(/the small file that describes it.*--source-format raw/);
    expect(digestOf(openSource(extent, 'raw'))).toBe(rawDigest());
  });
});

it('our own files are refused, and what to do is said', async () => {
  using place = new TempFolder();
  await createImage(folder.file('disk.raw'), place.file('vm.spf'));
  for (const name of ['vm.raw', 'vm.vhdx', 'vm.qcow2']) {
    createPluginFile(place.file('vm.spf'), place.file(name));
    expect(refusalOf(place.file(name)).message).toMatch(/plugin file.*veneer mount FOLDER MOUNTPOINT/);
  }
  expect(refusalOf(place.file('vm.spf')).message).toMatch(/image of Veneer.*image extract/);
  fs.copyFileSync(place.file('vm.spf'), place.file('copy.img'));
  expect(refusalOf(place.file('copy.img')).message).toMatch(/image of Veneer/);
});

describe('a VMDK descriptor', () => {
  it.each([
    ['as it is written', (text: string) => text],
    ['behind a comment', (text: string) => `# made by hand\n\n${text}`],
    ['behind a byte order mark', (text: string) => `\uFEFF${text}`],
    ['without its first line', (text: string) => text.replace(/^# Disk DescriptorFile\n/, '')],
    ['with lines of Windows', (text: string) => text.replaceAll('\n', '\r\n')],
  ])('is known %s, whatever it is called', (_how, edit) => {
    using place = new TempFolder();
    qemuImg('convert', '-O', 'vmdk', '-o', 'subformat=monolithicFlat', folder.file('disk.raw'), place.file('vm.vmdk'));
    fs.writeFileSync(place.file('vm.vmdk'), edit(fs.readFileSync(place.file('vm.vmdk'), 'utf8')));
    fs.copyFileSync(place.file('vm.vmdk'), place.file('vm.img'));
    expect(digestOf(openSource(place.file('vm.vmdk')))).toBe(rawDigest());
    expect(refusalOf(place.file('vm.img')).message).toContain('--source-format vmdk');
    expect(digestOf(openSource(place.file('vm.img'), 'vmdk'))).toBe(rawDigest());
  });
});

describe('a fixed VHD whose guest has written a header into its first sector', () => {
  it.each([
    ['qcow2', 'QFI\xfb\0\0\0\x03'],
    ['VHDX', 'vhdxfile'],
    ['dynamic VHD', 'conectix'],
    ['gzip', '\x1f\x8b\x08'],
    ['an image', 'VENEERIM'],
  ])('of %s is still the disk that its footer says', (_what, magic) => {
    using place = new TempFolder();
    const source = place.write('guest.raw', Buffer.concat([Buffer.from(magic, 'latin1'), raw.subarray(magic.length)]));
    const vhd = place.file('vm.vhd');
    qemuImg('convert', '-f', 'raw', '-O', 'vpc', '-o', 'subformat=fixed,force_size=on', source, vhd);
    const wanted = createHash('sha256').update(fs.readFileSync(source)).digest('hex');
    expect(digestOf(openSource(vhd))).toBe(wanted);
    refusalOf(source);
  });
});

describe('the backing file of a qcow2', () => {
  /** `base`: how the backing file is made; `said`: the format that the child's header says. */
  const cases: readonly (readonly [
    name: string,
    base: string,
    said: string | undefined,
    reads: 'disk' | 'bytes' | RegExp,
  ])[] = [
    ['base.img', 'qcow2', 'qcow2', 'disk'],
    ['base', 'vmdk', 'vmdk', 'disk'],
    ['base.bin', 'vhdx', 'vhdx', 'disk'],
    ['base.raw', 'vdi', 'vdi', 'disk'],
    ['base.qcow2', 'vpc', 'vpc', 'disk'],
    ['base.img', 'raw', 'raw', 'disk'],
    ['base.qcow2', 'raw', 'raw', 'disk'],
    ['base.img', 'qcow2', 'raw', 'bytes'],
    ['base.qcow2', 'qcow2', undefined, 'disk'],
    ['base.img', 'raw', undefined, 'disk'],
    ['base.vhdx', 'vhdx', undefined, 'disk'],
    ['base.img', 'qcow2', undefined, /base\.img: is a qcow2 file.*qemu-img rebase -u -f qcow2 -F qcow2.*-F raw/],
    ['base', 'vdi', undefined, /rebase -u -f qcow2 -F vdi/],
    ['base.vmdk', 'raw', undefined, /is called a vmdk file/],
    ['base.img', 'qcow2', 'vmdk', /base\.img/],
    ['base.img', 'raw', 'qcow2', /base\.img/],
    ['base.img', 'qed', 'qed', 'disk'],
    ['base.img', 'parallels', 'parallels', /"parallels", which is not read/],
  ];

  it.each(cases)('%s that is %s, said to be %s', (name, base, said, reads) => {
    using place = new TempFolder();
    const subformat = base === 'vpc' ? ['-o', 'force_size=on'] : [];
    qemuImg('convert', '-f', 'raw', '-O', base, ...subformat, folder.file('disk.raw'), place.file(name));
    const child = place.file('child.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', said ?? 'raw', child, String(sizeBytes));
    if (said === undefined) forgetBackingFormat(child);
    if (reads instanceof RegExp) {
      expect(refusalOf(child).message).toMatch(reads);
      return;
    }
    const wanted = reads === 'disk' ? raw : Buffer.concat([fs.readFileSync(place.file(name)), Buffer.alloc(sizeBytes)]);
    expect(digestOf(openSource(child))).toBe(createHash('sha256').update(wanted.subarray(0, sizeBytes)).digest('hex'));
  });

  it('is never one that the folder of the file does not hold, whatever a name or a link says', () => {
    using place = new TempFolder();
    fs.mkdirSync(place.file('vm'));
    fs.copyFileSync(folder.file('disk.raw'), place.file('secret.raw'));
    fs.symlinkSync('../secret.raw', place.file('vm/link.raw'));
    for (const name of ['../secret.raw', place.file('secret.raw'), 'link.raw']) {
      const child = place.file('vm/child.qcow2');
      qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', 'raw', child, String(sizeBytes));
      expect(refusalOf(child).message).toMatch(/in its folder, which is not there/);
    }
    for (const name of ['json:{"driver":"raw"}', 'nbd://host/x', 'ssh://host/x']) {
      const child = place.file('vm/child.qcow2');
      writeBackingName(child, name);
      expect(refusalOf(child).message).toMatch(/is not a plain file/);
    }
  });
});

it('a qcow2 file whose data lies in another file is refused, and that file is named', () => {
  using place = new TempFolder();
  const file = place.file('vm.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${place.file('outside.data')}`, file, '1M');
  expect(refusalOf(file).message).toMatch(/outside\.data.*is not read.*qemu-img/);
});

it('a VMDK’s parent is a VMDK, whatever it is called', () => {
  using place = new TempFolder();
  qemuImg('convert', '-f', 'raw', '-O', 'vmdk', folder.file('disk.raw'), place.file('base.img'));
  qemuImg('create', '-q', '-f', 'vmdk', '-b', place.file('base.img'), '-F', 'vmdk', place.file('child.vmdk'));
  expect(digestOf(openSource(place.file('child.vmdk')))).toBe(rawDigest());
});

it('what a file may be is told without an end to its size', () => {
  using place = new TempFolder();
  for (const length of [0, 1, 63, 64, 257, 511, 512, 513, 4095, 4096]) {
    const disk = openFileDisk(place.write('any', Buffer.alloc(length, 0xcc)));
    expect(probe(disk)).toEqual([]);
    disk.close();
  }
});

/** The type of the header extension becomes one that nobody knows, as in files of old writers, which have none. */
function forgetBackingFormat(file: string): void {
  const contents = fs.readFileSync(file);
  const at = contents.indexOf(Buffer.from([0xe2, 0x79, 0x2a, 0xca]));
  contents.writeUInt32BE(0x1234_5678, at);
  fs.writeFileSync(file, contents);
}

function writeBackingName(file: string, name: string): void {
  qemuImg('create', '-q', '-f', 'qcow2', file, String(sizeBytes));
  const contents = fs.readFileSync(file);
  contents.writeBigUInt64BE(1024n, 8);
  contents.writeUInt32BE(name.length, 16);
  contents.write(name, 1024);
  fs.writeFileSync(file, contents);
}
