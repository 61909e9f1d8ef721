import { MiB } from '../../../src/base/units.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { header, headerOffsets } from '../../../src/native/vhdx/layout.ts';
import { openVhdx, type VhdxDisk } from '../../../src/native/vhdx/read.ts';
import { conformsToDisk, type Specimen } from '../../disk/conformance.ts';
import { ModelDisk } from '../../disk/model-disk.ts';
import { differencing, encodeLogEntry, makeDirty, putLogEntry, synthesized } from './crafted.ts';
import { seededBytes, seededDisk } from './disk-file.ts';
import { bytesOf } from './judges.ts';

const sizeBytes = 8 * MiB + 512;
const boundaries = [MiB, 2 * MiB, 2 * MiB + 512, 3 * MiB, 7 * MiB, 8 * MiB];
const below = seededDisk(sizeBytes, 'conformance');
const contents = (): Buffer => bytesOf(below, 0, sizeBytes);

function specimen(disk: VhdxDisk, expected: Buffer): Specimen {
  return { disk, model: ModelDisk.of(expected), boundaries };
}

conformsToDisk('a dynamic VHDX', () => specimen(openVhdx(memoryDisk(synthesized(below, 'dynamic'))), contents()));

conformsToDisk('a fixed VHDX', () => specimen(openVhdx(memoryDisk(synthesized(below, 'fixed'))), contents()));

conformsToDisk('a VHDX with a log to replay', () => {
  const file = synthesized(below, 'fixed');
  const expected = contents();
  const payload = file.length - 9 * MiB;
  const data = seededBytes('log', 4096);
  const writes = [
    { offset: payload + MiB - 4096, data },
    { offset: payload + MiB, zeroBytes: MiB + 4096 },
    { offset: payload + 3 * MiB, data },
  ];
  for (const at of [MiB - 4096, 3 * MiB]) data.copy(expected, at);
  expected.fill(0, MiB, 2 * MiB + 4096);
  putLogEntry(file, 0, encodeLogEntry({ sequenceNumber: 1n, tail: 0, writes, flushedFileOffset: file.length }));
  makeDirty(file);
  return specimen(openVhdx(memoryDisk(file)), expected);
});

conformsToDisk('a differencing VHDX', () => {
  const parent = synthesized(below, 'dynamic', 'eeeeeeee-0000-4000-8000-000000000001');
  const partial = seededBytes('partial', MiB);
  const sectors = [0, 2, 3, 4, 9, 1024, 2047];
  const child = differencing(below, {
    parentLinkage: header.parse(parent, headerOffsets[1]).dataWriteGuid,
    parentPath: 'parent.vhdx',
    identity: 'eeeeeeee-0000-4000-8000-000000000002',
    blocks: [
      { block: 2, contents: partial, sectors },
      { block: 7, contents: seededBytes('full', MiB) },
    ],
  });
  const expected = contents();
  for (const sector of sectors) partial.copy(expected, 2 * MiB + sector * 512, sector * 512, sector * 512 + 512);
  seededBytes('full', MiB).copy(expected, 7 * MiB);
  return specimen(openVhdx(memoryDisk(child), { openParent: () => ({ file: memoryDisk(parent) }) }), expected);
});
