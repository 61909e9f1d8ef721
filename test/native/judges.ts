/**
 * Foreign programs that say whether a native disk file is right: QEMU, libvhdi, libvmdk, libqcow and 7-Zip. A judge throws with the
 * program's own words when it is not content.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { MiB } from '../../src/base/units.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { patience } from '../patience.ts';

/** What a judge needs to know before there is a file. */
export interface Kind {
  readonly format: string;
  readonly layout: string;
  readonly sizeBytes: number;
}

/** A native disk file on the host, and what it should hold. */
export interface Evidence {
  readonly format: string;
  /** The native disk file; a VMDK's descriptor. */
  readonly file: string;
  /** The disk as a raw file. */
  readonly golden: string;
  /** The size that the native file says its disk has. */
  readonly virtualSizeBytes: number;
}

export interface Judge {
  /** What it finds, as a test's title. */
  readonly title: string;
  /** Programs without which it cannot judge. */
  readonly needs: readonly string[];
  /** False where the judge does not know the kind of file, or would read all of a huge disk. */
  readonly knows: (kind: Kind) => boolean;
  readonly judge: (evidence: Evidence) => void;
}

const qemuNames: Readonly<Record<string, string>> = {
  raw: 'raw',
  qcow2: 'qcow2',
  vhd: 'vpc',
  vhdx: 'vhdx',
  vmdk: 'vmdk',
  vdi: 'vdi',
};
const sevenZipNames: Readonly<Record<string, string>> = {
  qcow2: 'QCOW',
  vhd: 'VHD',
  vhdx: 'VHDX',
  vmdk: 'VMDK',
  vdi: 'VDI',
};
/** What is read in full by judges that do not know holes. */
const readInFullBytes = 128 * MiB;
const timeoutMs = 60_000;

/** Debian's Python, whose packages hold pyvhdi: another Python may stand first in the path. */
const python = '/usr/bin/python3';

/** The first of the programs that is not installed. */
export function missingProgram(programs: readonly string[]): string | undefined {
  return programs.find((program) => !isInstalled(program));
}

const installed = new Map<string, boolean>();
function isInstalled(program: string): boolean {
  let found = installed.get(program);
  if (found === undefined) {
    found =
      program === 'pyvhdi'
        ? spawnSync(python, ['-c', 'import pyvhdi']).status === 0
        : spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
    installed.set(program, found);
  }
  return found;
}

/** Runs a program to its end and returns what it printed. @throws Error with all of its output when it fails. */
export function runProgram(program: string, args: readonly string[], alsoFine: readonly number[] = []): string {
  const result = spawnSync(program, args, { encoding: 'utf8', timeout: patience(timeoutMs), maxBuffer: 64 * MiB });
  if (result.status === 0 || alsoFine.includes(result.status ?? 0)) return result.stdout;
  const reason = result.error?.message ?? `exit ${result.status ?? result.signal}`;
  throw new Error(`${program} ${args.join(' ')}: ${reason}\n${result.stdout}${result.stderr}`);
}

function qemuName(format: string): string {
  const name = qemuNames[format];
  if (name === undefined) throw new Error(`QEMU's name for ${format} is not written down`);
  return name;
}

function expectPrinted(printed: string, pattern: RegExp, value: string): void {
  const found = pattern.exec(printed)?.[1];
  if (found !== value) throw new Error(`${found} where ${value} belongs, in:\n${printed}`);
}

function sha256Of(file: string, lengthBytes: number): string {
  const hash = createHash('sha256');
  const fd = fs.openSync(file, 'r');
  const piece = Buffer.alloc(MiB);
  for (let at = 0; at < lengthBytes; at += piece.length) {
    const count = fs.readSync(fd, piece, 0, Math.min(piece.length, lengthBytes - at), at);
    hash.update(piece.subarray(0, count));
  }
  fs.closeSync(fd);
  return hash.digest('hex');
}

const pyvhdiScript = `
import hashlib, pyvhdi, sys
names, pieces = sys.argv[1].split('|'), sys.argv[2:]
disks = [pyvhdi.file() for _ in names]
for disk, name in zip(disks, names):
    disk.open(name)
for child, parent in zip(disks, disks[1:]):
    child.set_parent(parent)
print(disks[0].get_media_size())
for piece in pieces:
    offset, length = map(int, piece.split('+'))
    disks[0].seek_offset(offset, 0)
    print(hashlib.sha256(disks[0].read_buffer(length)).hexdigest())
`;

interface Piece {
  readonly offset: number;
  readonly length: number;
}

/** The size of the disk, and SHA-256 of pieces of it, as libvhdi reads them. `files`: the file, its parent, the parent's and so on. */
export function readWithLibvhdi(files: readonly string[], pieces: readonly Piece[]): string[] {
  const ranges = pieces.map(({ offset, length }) => `${offset}+${length}`);
  return runProgram(python, ['-c', pyvhdiScript, files.join('|'), ...ranges])
    .trim()
    .split('\n');
}

/** Compares all of a small disk, and pieces from all over a large one. */
function judgeWithLibvhdi({ file, golden, virtualSizeBytes }: Evidence): void {
  const goldenBytes = fs.statSync(golden).size;
  const pieceBytes = MiB;
  const count = Math.min(Math.ceil(goldenBytes / pieceBytes), 97);
  const pieces = Array.from({ length: count }, (_, index) => {
    const offset = count === 1 ? 0 : Math.floor(((goldenBytes - pieceBytes) / (count - 1) / 512) * index) * 512;
    return { offset, length: Math.min(pieceBytes, goldenBytes - offset) };
  });
  const fd = fs.openSync(golden, 'r');
  const digests = pieces.map(({ offset, length }) => {
    const piece = Buffer.alloc(length);
    fs.readSync(fd, piece, 0, length, offset);
    return createHash('sha256').update(piece).digest('hex');
  });
  fs.closeSync(fd);
  const expected = [String(virtualSizeBytes), ...digests];
  const found = readWithLibvhdi([file], pieces);
  const wrong = expected.findIndex((line, index) => line !== found[index]);
  if (wrong >= 0) throw new Error(`libvhdi: ${found[wrong]} where ${expected[wrong]} belongs (line ${wrong})`);
}

function judgeWithSevenZipExtract(evidence: Evidence): void {
  const folder = fs.mkdtempSync(path.join(path.dirname(evidence.file), 'extracted-'));
  try {
    runProgram('7zz', ['x', `-t${sevenZipNames[evidence.format]}`, '-y', `-o${folder}`, evidence.file]);
    const [only, ...others] = fs.readdirSync(folder);
    if (only === undefined || others.length > 0) throw new Error(`7-Zip extracted ${others.length + 1} files`);
    const goldenBytes = fs.statSync(evidence.golden).size;
    const extracted = path.join(folder, only);
    if (fs.statSync(extracted).size !== evidence.virtualSizeBytes) throw new Error('7-Zip extracted another size');
    if (sha256Of(extracted, goldenBytes) !== sha256Of(evidence.golden, goldenBytes)) {
      throw new Error('7-Zip extracted other bytes');
    }
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** 7-Zip 26 opens a VHDX only of a disk of whole 4 KiB, also one that QEMU has made. */
const isKnownToSevenZip = ({ format, sizeBytes }: Kind): boolean =>
  sevenZipNames[format] !== undefined && (format !== 'vhdx' || sizeBytes % 4096 === 0);
/** libvhdi 20210425 overlooks that a fixed VHDX has entries for sector bitmaps, the first behind 4 GiB, also in one that QEMU has made. */
const isReadByLibvhdi = ({ format, layout, sizeBytes }: Kind): boolean =>
  format === 'vhd' || (format === 'vhdx' && (layout === 'dynamic' || sizeBytes <= 2 ** 32));

const isSmall = (kind: Kind): boolean => kind.sizeBytes <= readInFullBytes;
/** QEMU asks a VDI or a sparse VMDK unit by unit, and reads all of a VHDX: up to minutes for 2 TiB. */
const isSlowInQemu = ({ format, layout, sizeBytes }: Kind): boolean =>
  sizeBytes > 2 ** 40 && (['vhdx', 'vdi'].includes(format) || (format === 'vmdk' && layout === 'sparse'));

/** Compares only where the disk has data, and some of the zeros around it. */
function judgeWhereDataLies({ format, file, golden }: Evidence): void {
  const disk = openFileDisk(golden);
  const dataExtents = [...disk.extents(0, disk.sizeBytes)].filter((extent) => extent.kind === 'data');
  disk.close();
  const marginBytes = 256 * 1024;
  for (const extent of dataExtents) {
    const offset = Math.max(0, extent.offset - marginBytes);
    const size = Math.min(extent.length + 2 * marginBytes, disk.sizeBytes - offset);
    const range = `driver=raw,offset=${offset},size=${size}`;
    runProgram('qemu-img', [
      'compare',
      '--image-opts',
      `${range},file.driver=${qemuName(format)},file.file.driver=file,file.file.filename=${file}`,
      `${range},file.driver=file,file.filename=${golden}`,
    ]);
  }
}

/** Writes over data, over holes and at both ends, and reads back. What was synthesized must grow as QEMU's own files do. */
function judgeByWriting({ format, file, virtualSizeBytes }: Evidence): void {
  const lengthBytes = 192 * 1024;
  const last = virtualSizeBytes - lengthBytes;
  const places = [0, 0.3, 0.6, 1].map((part) => Math.floor((part * last) / 512) * 512);
  const ranges = places.map((offset, index) => `-P ${index + 1} ${offset} ${lengthBytes}`);
  const commands = ['write', 'read'].flatMap((verb) => ranges.flatMap((range) => ['-c', `${verb} ${range}`]));
  const printed = runProgram('qemu-io', ['-f', qemuName(format), ...commands, file]);
  if (/fail|error/i.test(printed)) throw new Error(printed);
  runProgram('qemu-img', ['check', '-f', qemuName(format), file], format === 'raw' || format === 'vhd' ? [63] : []);
}

/** All judges; each says of which files it can tell. */
const judges: readonly Judge[] = [
  {
    title: 'qemu-img info reads the size of the disk',
    needs: ['qemu-img'],
    knows: () => true,
    judge: ({ format, file, virtualSizeBytes }) => {
      const printed = runProgram('qemu-img', ['info', '--output=json', '-f', qemuName(format), file]);
      expectPrinted(printed, /"virtual-size": (\d+)/, String(virtualSizeBytes));
    },
  },
  {
    title: 'qemu-img check finds neither error nor leak',
    needs: ['qemu-img'],
    knows: ({ format, layout }) => !['raw', 'vhd'].includes(format) && layout !== 'flat',
    judge: ({ format, file }) => {
      const printed = runProgram('qemu-img', ['check', '-f', qemuName(format), file]);
      if (!printed.includes('No errors were found')) throw new Error(printed);
    },
  },
  {
    title: 'qemu-img compare finds the disk in it',
    needs: ['qemu-img'],
    knows: (kind) => !isSlowInQemu(kind),
    judge: ({ format, file, golden }) => {
      runProgram('qemu-img', ['compare', '-f', qemuName(format), '-F', 'raw', file, golden]);
    },
  },
  {
    title: 'qemu-img compare finds the data of the disk in it',
    needs: ['qemu-img'],
    knows: isSlowInQemu,
    judge: judgeWhereDataLies,
  },
  {
    title: 'vhdiinfo reads the size of the disk',
    needs: ['vhdiinfo'],
    knows: ({ format }) => ['vhd', 'vhdx'].includes(format),
    judge: ({ file, virtualSizeBytes }) => {
      expectPrinted(runProgram('vhdiinfo', [file]), /Media size.*?(\d+)(?: bytes\)?)?\)?$/m, String(virtualSizeBytes));
    },
  },
  {
    title: 'libvhdi reads the bytes of the disk',
    needs: ['pyvhdi'],
    knows: isReadByLibvhdi,
    judge: judgeWithLibvhdi,
  },
  {
    title: 'vmdkinfo reads the size of the disk',
    needs: ['vmdkinfo'],
    knows: ({ format }) => format === 'vmdk',
    judge: ({ file, virtualSizeBytes }) => {
      expectPrinted(runProgram('vmdkinfo', [file]), /Media size.*?(\d+)(?: bytes\)?)?\)?$/m, String(virtualSizeBytes));
    },
  },
  {
    title: 'qcowinfo reads the size of the disk',
    needs: ['qcowinfo'],
    knows: ({ format }) => format === 'qcow2',
    judge: ({ file, virtualSizeBytes }) => {
      expectPrinted(runProgram('qcowinfo', [file]), /Media size.*?(\d+)(?: bytes\)?)?\)?$/m, String(virtualSizeBytes));
    },
  },
  {
    title: '7-Zip lists it without a warning',
    needs: ['7zz'],
    knows: isKnownToSevenZip,
    judge: ({ format, file, virtualSizeBytes }) => {
      const printed = runProgram('7zz', ['l', '-slt', `-t${sevenZipNames[format]}`, file]);
      if (/warning|error/i.test(printed)) throw new Error(printed);
      expectPrinted(printed, /-{10}\n(?:.*\n)*?Size = (\d+)/, String(virtualSizeBytes));
    },
  },
  {
    title: '7-Zip finds nothing wrong in it',
    needs: ['7zz'],
    knows: (kind) => isSmall(kind) && isKnownToSevenZip(kind),
    judge: ({ format, file }) => {
      const printed = runProgram('7zz', ['t', `-t${sevenZipNames[format]}`, file]);
      if (!printed.includes('Everything is Ok') || /warning/i.test(printed)) throw new Error(printed);
    },
  },
  {
    title: '7-Zip extracts the bytes of the disk',
    needs: ['7zz'],
    knows: (kind) => isSmall(kind) && isKnownToSevenZip(kind),
    judge: judgeWithSevenZipExtract,
  },
  // The last: it changes the file.
  {
    title: 'QEMU writes into it, and finds it right afterwards',
    needs: ['qemu-img', 'qemu-io'],
    knows: () => true,
    judge: judgeByWriting,
  },
];

/** The judges that can tell whether a file of this kind is right. */
export function judgesOf(kind: Kind): readonly Judge[] {
  return judges.filter((judge) => judge.knows(kind));
}
