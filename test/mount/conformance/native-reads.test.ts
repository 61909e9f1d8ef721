/** Reads of a native file that is made on the fly: the same bytes as a file that was written out without image and mount. */
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { KiB, MiB, TiB } from '../../../src/base/units.ts';
import { synthesizeFiles, planGeometry } from '../../../src/native/formats.ts';
import { encodePluginFile } from '../../../src/plugin/plugin-file.ts';
import { runOk } from '../../cli/veneer.ts';
import { expectSameBytes } from '../../disk/model-disk.ts';
import { seededTest } from '../../seeded.ts';
import { diskBytes, mapOf, readFrom, readPart, writeExpected, writeGuest } from '../guest-disk.ts';
import { MountPlace, placeForTest } from '../mounted.ts';
import { describeAboveTransports, describeTransports } from '../transports.ts';

const { O_RDONLY, O_DIRECT } = fs.constants;

describeTransports('reads of a native file', (transport) => {
  let place: MountPlace;
  let raw: string;
  const expected = (name: string): string => place.temporary.file(`expected ${name}`);

  beforeAll(async () => {
    place = new MountPlace();
    raw = place.temporary.file('disk.raw');
    await writeGuest(place.folder, raw);
    for (const name of ['vm.vhdx', 'thin.vhdx']) writeExpected(place.behind(name), raw, expected(name));
    await place.mount(...transport.options);
    return () => place.end();
  });

  /** Reads through the page cache and past it, and compares both with what belongs there. */
  async function expectRanges(
    name: string,
    ranges: ReadonlyArray<readonly [offset: number, length: number]>,
  ): Promise<void> {
    const wanted = await fs.promises.open(expected(name));
    const cached = await fs.promises.open(place.under(name));
    const direct = await fs.promises.open(place.under(name), O_RDONLY | O_DIRECT);
    try {
      for (const [offset, length] of ranges) {
        const bytes = await readFrom(wanted, offset, length);
        expectSameBytes(
          await readFrom(direct, offset, length),
          bytes,
          `${length} bytes of ${name} at ${offset}, direct`,
        );
        expectSameBytes(await readFrom(cached, offset, length), bytes, `${length} bytes of ${name} at ${offset}`);
      }
    } finally {
      for (const handle of [wanted, cached, direct]) await handle.close();
    }
  }

  it.each(['vm.vhdx', 'thin.vhdx'])('%s equals the file written out, from end to end', async (name) => {
    await runOk('cmp', [expected(name), place.under(name)]);
  });

  it.each(['vm.vhdx', 'thin.vhdx'])('QEMU finds the guest’s disk in %s', async (name) => {
    expect(await runOk('qemu-img', ['check', '-f', 'vhdx', place.under(name)])).toContain('No errors');
    const said = await runOk('qemu-img', ['compare', '-f', 'vhdx', '-F', 'raw', place.under(name), raw]);
    expect(said).toContain('Images are identical');
  });

  it.each(['vm.vhdx', 'thin.vhdx'])(
    '%s reads right across every boundary of segments, blocks and requests',
    async (name) => {
      const map = mapOf(place.behind(name));
      const boundaries = new Set<number>([0, map.sizeBytes]);
      for (const { fileOffset, lengthBytes } of map.diskRanges()) {
        for (const at of [fileOffset, fileOffset + lengthBytes]) boundaries.add(at);
        // Of image blocks, of 128 KiB and of 1 MiB requests.
        for (const step of [64 * KiB, 128 * KiB, MiB]) boundaries.add(fileOffset + Math.min(step, lengthBytes));
      }
      for (const headers of [
        64 * KiB,
        128 * KiB,
        192 * KiB,
        256 * KiB,
        MiB,
        2 * MiB,
        2 * MiB + 64 * KiB,
        3 * MiB,
        4 * MiB,
      ])
        boundaries.add(headers);
      const ranges: Array<readonly [number, number]> = [];
      for (const boundary of boundaries) {
        for (const before of [1, 511, 512, 4095]) {
          for (const behind of [0, 1, 513, 4096]) {
            const from = Math.max(0, boundary - before);
            ranges.push([from, boundary - from + behind]);
          }
        }
        ranges.push([Math.max(0, boundary - 100 * KiB - 1), 300 * KiB]);
      }
      await expectRanges(name, ranges);
    },
  );

  it('reads right at every alignment within a page and any length', async () => {
    const random = seededTest(`alignment ${transport.name}`);
    const { sizeBytes } = mapOf(place.behind('vm.vhdx'));
    const ranges: Array<readonly [number, number]> = [];
    for (let within = 0; within < 4096; within += 37)
      ranges.push([4096 * random.below(sizeBytes / 4096) + within, random.between(1, 9000)]);
    for (let count = 0; count < 40; count++) ranges.push([random.below(sizeBytes), random.between(1, 2 * MiB)]);
    await expectRanges('vm.vhdx', ranges);
  });

  it('a read past the end is empty, one across it is short', async () => {
    const { sizeBytes } = mapOf(place.behind('vm.vhdx'));
    for (const flags of [O_RDONLY, O_RDONLY | O_DIRECT]) {
      expect(await readPart(place.under('vm.vhdx'), sizeBytes, 4096, flags)).toHaveLength(0);
      expect(await readPart(place.under('vm.vhdx'), sizeBytes + 10 * MiB, 4096, flags)).toHaveLength(0);
      expect(await readPart(place.under('vm.vhdx'), sizeBytes - 100, 4096, flags)).toHaveLength(100);
    }
  });

  it(`64 readers at once, ${transport.callersAtOnce} of them in the kernel, each get what belongs to them`, async () => {
    const script = path.join(import.meta.dirname, 'concurrent-readers-script.ts');
    const job = {
      file: place.under('vm.vhdx'),
      expected: expected('vm.vhdx'),
      readers: 64,
      readsEach: 24,
      seed: 'concurrent readers',
    };
    const pool = `UV_THREADPOOL_SIZE=${transport.callersAtOnce}`;
    const said = await runOk('env', [pool, process.execPath, '--no-warnings', script, JSON.stringify(job)]);
    expect(said.trim()).toBe(`${64 * 24} reads, all right`);
  });

  it('a memory-mapped file reads the same', async () => {
    const program = [
      'import mmap, sys',
      'a, b = (open(name, "rb") for name in sys.argv[1:])',
      'a, b = (mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) for f in (a, b))',
      'print(len(a) == len(b) and all(a[i:i + 4096] == b[i:i + 4096] for i in range(0, len(a), 4096 * 7)))',
    ].join('\n');
    const said = await runOk('/usr/bin/python3', ['-c', program, place.under('vm.vhdx'), expected('vm.vhdx')]);
    expect(said.trim()).toBe('True');
  });

  it('qemu-img convert copies the guest’s disk out', async () => {
    const out = place.temporary.file('out.raw');
    await runOk('qemu-img', ['convert', '-f', 'vhdx', '-O', 'raw', place.under('thin.vhdx'), out]);
    await runOk('cmp', ['-n', String(diskBytes), out, raw]);
  });
});

describeAboveTransports('a native file of 63 TiB', (transport) => {
  it('has its size, and its tables read right, though no image is anywhere', async () => {
    const place = placeForTest();
    const sizeBytes = 63 * TiB;
    const native = planGeometry(
      'vhdx',
      {
        sizeBytes,
        logicalSectorBytes: 512,
        physicalSectorBytes: 4096,
        identity: '3f1d54c6-08f1-4c07-9c0e-7d2a6f0a51b4',
        allocatedRuns: () => [],
      },
      { layout: 'fixed', unitBytes: MiB },
    );
    const guid = '3f1d54c6-08f1-4c07-9c0e-7d2a6f0a51b5';
    const source = {
      kind: 'chain',
      path: 'away.spf',
      imageId: guid,
      chainId: guid,
      createdAt: '2026-01-01T00:00:00.000Z',
    } as const;
    const contents = encodePluginFile({ id: guid, source, disk: { content: 'disk', sizeBytes }, native });
    fs.writeFileSync(place.behind('huge.vhdx'), contents);
    await place.mount(...transport.options);

    const [file] = synthesizeFiles(native, 'huge.vhdx');
    if (file === undefined) expect.fail('no file');
    const shown = await fs.promises.stat(place.under('huge.vhdx'), { bigint: true });
    expect(shown.size).toBe(BigInt(file.map.sizeBytes));
    expect(shown.blocks).toBe(BigInt(file.map.sizeBytes) / 512n);
    const info = JSON.parse(
      await runOk('qemu-img', ['info', '--output', 'json', '-f', 'vhdx', place.under('huge.vhdx')]),
    ) as { 'virtual-size': number };
    expect(info['virtual-size']).toBe(sizeBytes);
    const noDisk = (): never => expect.fail('the disk was asked for');
    for (const offset of [3 * MiB + 1, 200 * MiB - 3, 500 * MiB]) {
      const wanted = Buffer.alloc(10_000);
      file.map.read(wanted, offset, noDisk);
      expectSameBytes(await readPart(place.under('huge.vhdx'), offset, 10_000), wanted, `the BAT at ${offset}`);
    }
    await expect(readPart(place.under('huge.vhdx'), file.map.sizeBytes - 512, 512)).rejects.toMatchObject({
      code: 'EIO',
    });
  });
});
