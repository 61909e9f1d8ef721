/** Making an image costs what its source has, not its square: twice the extents are twice the calls of the file. */
import { describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import type { Disk } from '../../src/disk/disk.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { openQcow2 } from '../../src/native/qcow2/read.ts';
import { openVdi } from '../../src/native/vdi/read.ts';
import { openVhd } from '../../src/native/vhd/read.ts';
import { openVhdx } from '../../src/native/vhdx/read.ts';
import { openVmdk } from '../../src/native/vmdk/read.ts';
import { missingProgram, runProgram } from '../native/judges.ts';
import { seededTest, type Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

interface Source {
  readonly title: string;
  readonly qemu: readonly string[];
  readonly open: (file: Disk) => Disk;
  /** What its file is made of. */
  readonly unitBytes: number;
  /** Streams are only written in order. */
  readonly isStream?: boolean;
}

const sources: readonly Source[] = [
  { title: 'a compressed qcow2', qemu: ['qcow2'], open: openQcow2, unitBytes: 64 * KiB, isStream: true },
  { title: 'a scattered qcow2', qemu: ['qcow2'], open: openQcow2, unitBytes: 64 * KiB },
  {
    title: 'a stream-optimized VMDK',
    qemu: ['vmdk', '-o', 'subformat=streamOptimized'],
    open: openVmdk,
    unitBytes: 64 * KiB,
    isStream: true,
  },
  { title: 'a scattered VMDK', qemu: ['vmdk'], open: openVmdk, unitBytes: 64 * KiB },
  { title: 'a scattered VDI', qemu: ['vdi'], open: openVdi, unitBytes: MiB },
  { title: 'a scattered VHD', qemu: ['vpc', '-o', 'force_size=on'], open: openVhd, unitBytes: 2 * MiB },
  { title: 'a scattered VHDX', qemu: ['vhdx', '-o', 'block_size=1M'], open: openVhdx, unitBytes: MiB },
];

const missing = missingProgram(['qemu-img', 'qemu-io']);

describe('an image', () => {
  it.each(sources)('of $title costs what the file has', { timeout: 60_000 }, async (source) => {
    if (missing !== undefined) expect.fail(`${missing} is not installed`);
    const random = seededTest(source.title);
    const once = await callsFor(source, 60, random);
    const twice = await callsFor(source, 120, random);
    expect(twice, `calls of the file, after ${once} for half as much`).toBeLessThan(2.3 * once + 50);
  });

  it('asks a source of one long run for each of its pieces a few times', async () => {
    using folder = new TempFolder();
    const [sizeBytes, pieceBytes] = [160 * MiB, 4 * KiB];
    let looked = 0;
    const disk: Disk = {
      sizeBytes,
      read: (target) => target.fill(0),
      *extents(offset, length) {
        for (let at = offset; at < offset + length; at += pieceBytes, looked++)
          yield { offset: at, length: Math.min(pieceBytes, offset + length - at), kind: 'data' };
      },
      close: () => undefined,
    };
    const kind = { open: () => disk, workerUrl: new URL(import.meta.url) };
    await createImage('made here', folder.file('disk.spf'), { source: kind, threads: 1 });
    expect(looked).toBeLessThan((3 * sizeBytes) / pieceBytes);
  });
});

/** Calls of a source's file while an image is made of `units` scattered units. */
async function callsFor(source: Source, units: number, random: Seeded): Promise<number> {
  using folder = new TempFolder();
  const file = folder.file('source');
  const sizeBytes = units * source.unitBytes;
  if (source.isStream === true) {
    const raw = folder.write('raw', random.compressibleBytes(sizeBytes));
    runProgram('qemu-img', [
      'convert',
      '-q',
      '-f',
      'raw',
      ...(source.qemu[0] === 'qcow2' ? ['-c'] : []),
      '-O',
      ...source.qemu,
      raw,
      file,
    ]);
  } else {
    runProgram('qemu-img', ['create', '-q', '-f', ...source.qemu, file, String(sizeBytes)]);
    const order = Array.from({ length: units }, (_, unit) => unit).sort(() => random.below(3) - 1);
    const writes = order.flatMap((unit) => [
      '-c',
      `write -q -P ${1 + (unit % 200)} ${unit * source.unitBytes} ${source.unitBytes}`,
    ]);
    runProgram('qemu-io', ['-f', source.qemu[0] ?? 'raw', ...writes, file]);
  }
  let calls = 0;
  const kind = {
    open: (path: string) => source.open(counting(openFileDisk(path), () => calls++)),
    workerUrl: new URL(import.meta.url),
  };
  await createImage(file, folder.file('disk.spf'), { source: kind, threads: 1, codec: 'none' });
  return calls;
}

function counting(file: Disk, call: () => void): Disk {
  return {
    sizeBytes: file.sizeBytes,
    read(target, offset) {
      call();
      file.read(target, offset);
    },
    extents(offset, length) {
      call();
      return file.extents(offset, length);
    },
    close: () => file.close(),
  };
}
