import fs from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it, type TestContext } from 'vitest';
import { GiB, MiB, TiB } from '../../../src/base/units.ts';
import { vhdx } from '../../../src/native/vhdx/format.ts';
import { soak } from '../../seeded.ts';
import { materialize } from '../golden.ts';
import { factsOf, seededDisk, seededPlaces, writeRawFile } from './disk-file.ts';
import { libvhdiInfo, qemuCheck, qemuCompareRange, qemuImg } from './judges.ts';

/** ext4 has no files of 63 TiB, tmpfs has; holes take no memory. */
const memoryFolder = '/dev/shm';
const sizeBytes = 63 * TiB;

let folder = '';
afterEach(() => {
  if (folder !== '') fs.rmSync(folder, { recursive: true, force: true });
  folder = '';
});

function makeMemoryFolder(ctx: TestContext): string {
  if (!fs.existsSync(memoryFolder)) ctx.skip(`${memoryFolder} is not there`);
  folder = fs.mkdtempSync(path.join(memoryFolder, 'veneer-vhdx-'));
  return folder;
}

describe('a VHDX of 63 TiB', () => {
  for (const layout of ['fixed', 'dynamic'] as const) {
    // At 1 MiB the BAT alone takes 504 MiB of memory here: its entries are checked by arithmetic, and by judges in the soak.
    for (const unitBytes of soak ? [MiB, 32 * MiB, 256 * MiB] : [32 * MiB]) {
      it(`is the same disk to foreign readers: ${layout}, payload blocks of ${unitBytes / MiB} MiB`, (ctx) => {
        const file = path.join(makeMemoryFolder(ctx), 'disk.vhdx');
        const golden = path.join(folder, 'golden.raw');
        const disk = seededDisk(sizeBytes, 'huge');
        for (const { map } of vhdx.synthesize(vhdx.plan(factsOf(disk), { layout, unitBytes }), 'disk.vhdx')) {
          materialize(map, disk, file);
        }
        writeRawFile(golden, disk);
        qemuCheck(ctx, file);
        expect(JSON.parse(qemuImg(ctx, ['info', '--output=json', file]))).toMatchObject({ 'virtual-size': sizeBytes });
        for (const { offset, length } of seededPlaces(sizeBytes, 'huge')) {
          qemuCompareRange(ctx, file, golden, offset, length);
        }
        qemuCompareRange(ctx, file, golden, 4 * GiB - 64 * MiB, 128 * MiB);
        expect(libvhdiInfo(ctx, file)).toContain(`(${sizeBytes} bytes)`);
      }, 900_000);
    }
  }
});
