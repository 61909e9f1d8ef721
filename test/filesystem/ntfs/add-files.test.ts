/** Files added to NTFS volumes that ntfs-3g made, and what ntfs-3g's and The Sleuth Kit's tools find there afterwards. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expect, it, type TestContext } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import type { NewFile } from '../../../src/filesystem/ntfs/add-files.ts';
import { missingProgram } from '../../native/judges.ts';
import { covering } from '../../covering.ts';
import { seededTest, soak, type Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { skipWithout } from '../../guest/windows/hives.ts';
import { applyTo } from '../trees.ts';
import { addTo, drivers, judgeAdded, newFile, sha256, withVolume } from './added-files.ts';
import {
  differentCopies,
  judgedFile,
  judgedSecurity,
  judgePrograms,
  judgeVolume,
  listedNames,
  placeOfBits,
  readTree,
  sleuthNames,
  sleuthPrograms,
} from './judges.ts';
import { leaveFreeRecords, makeVolume, type VolumeOptions } from './made-volume.ts';

function makeWindows(
  context: TestContext,
  folder: TempFolder,
  driverCount: number,
  options: VolumeOptions = {},
): string {
  skipWithout(context, judgePrograms);
  const random = seededTest(`${driverCount} drivers`);
  const files: Record<string, Uint8Array> = { 'Windows/notes.txt': random.bytes(3000) };
  for (let index = 0; index < driverCount; index++)
    files[`Windows/System32/drivers/${random.pick(['acpi', 'Disk', 'usb', 'WDF', 'xb', 'v'])}${index}.sys`] =
      random.bytes(random.below(9000));
  return makeVolume(context, folder, {
    sizeBytes: 64 * MiB,
    files,
    ...options,
    fill: (mountpoint) => {
      options.fill?.(mountpoint);
      leaveFreeRecords(mountpoint, 12);
    },
  }).image;
}

/** Few drivers and many, and each size of cluster; a soak has the rest, too. */
const volumes = [
  [3, 4096],
  [60, 4096],
  [900, 4096],
  [150, 512],
  [150, 65_536],
] as const;

for (const [driverCount, clusterBytes] of covering(volumes, ([count, cluster]) => [count > 60, cluster]))
  it(`two drivers are added to ${driverCount} in clusters of ${clusterBytes}: every judge finds them, and nothing else changed`, (context) => {
    using folder = new TempFolder();
    const sizeBytes = clusterBytes === 65_536 ? 192 * MiB : 64 * MiB;
    const image = makeWindows(context, folder, driverCount, { clusterBytes, sizeBytes });
    const random = seededTest(`added to ${driverCount}`);
    const before = readTree(image);
    const files = [
      newFile(`${drivers}/viostor.sys`, random.bytes(102_123)),
      newFile(`${drivers}/vioscsi.sys`, random.bytes(100)),
    ];
    const { changes } = addTo(image, files);
    expect(changes.map(({ what }) => what)).toEqual([
      'add a driver',
      'take a file record',
      'take clusters',
      'enter a name in its folder',
      'add a driver',
      'take a file record',
      'enter a name in its folder',
    ]);
    judgeAdded(image, before, files);
    expect(differentCopies(image)).toEqual([]);
    const names = listedNames(image, drivers);
    expect(names).toHaveLength(driverCount + 2);
    if (missingProgram(sleuthPrograms) === undefined)
      expect(sleuthNames(image, judgedFile(image, drivers).record).sort()).toEqual([...names].sort());
    // The volume goes on: ntfs-3g finds the next free record and clusters.
    const next = folder.write('next', random.bytes(50_000));
    execFileSync('ntfscp', ['--force', '--quiet', image, next, `${drivers}/next.sys`], { stdio: 'pipe' });
    judgeAdded(image, new Map([...before, [`${drivers}/next.sys`, sha256(fs.readFileSync(next))]]), files);
  });

it('a driver has the security of the driver beside it: by the same id in $Secure, or a descriptor of its own', (context) => {
  skipWithout(context, judgePrograms);
  const random = seededTest('security');
  for (const mountOptions of ['permissions', 'compression']) {
    using folder = new TempFolder();
    const image = makeWindows(context, folder, 30, {
      mountOptions,
      fill: (mountpoint) => {
        const storport = path.join(mountpoint, drivers, 'storport.sys');
        fs.writeFileSync(storport, random.bytes(9000));
        if (mountOptions === 'permissions') fs.chmodSync(storport, 0o640);
      },
    });
    const before = readTree(image);
    const files = [newFile(`${drivers}/viostor.sys`, random.bytes(30_000))];
    addTo(image, files);
    judgeAdded(image, before, files);
    const [own, other] = ['viostor.sys', 'storport.sys'].map((name) => judgedSecurity(image, `${drivers}/${name}`));
    expect(own).toBe(other);
    expect(own).toMatch(mountOptions === 'permissions' ? /^ : 0x1/ : /Windows owner S-1-5-32-544/);
  }
});

/** A name of 8 and 3 characters that the folder may have. */
function randomName(random: Seeded): string {
  const letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-'.split('');
  const part = (length: number): string => Array.from({ length }, () => random.pick(letters)).join('');
  return random.oneIn(8) ? part(1 + random.below(8)) : `${part(1 + random.below(8))}.${part(1 + random.below(3))}`;
}

const rounds = soak ? 40 : 4;

it(
  'hundreds of files of any name and size in any folder: from a root alone to a tree of blocks that were split',
  { timeout: 1_800_000 },
  (context) => {
    using folder = new TempFolder();
    skipWithout(context, judgePrograms);
    const random = seededTest('many additions');
    const perRound = 60;
    const clusterBytes = random.pick([512, 1024, 4096]);
    const folders = ['/empty', '/few', '/many'];
    const { image } = makeVolume(context, folder, {
      sizeBytes: 48 * MiB,
      clusterBytes,
      fill: (mountpoint) => {
        for (const name of folders) fs.mkdirSync(path.join(mountpoint, name));
        for (let index = 0; index < 7; index++) fs.writeFileSync(path.join(mountpoint, 'few', `few${index}`), '');
        for (let index = 0; index < 400; index++)
          fs.writeFileSync(path.join(mountpoint, 'many', `a name that is long ${random.below(1e9)}.${index}`), '');
        leaveFreeRecords(mountpoint, rounds * perRound);
      },
    });
    const before = readTree(image);
    const model = new Map(before);
    const seen = new Set([...before.keys()].map((name) => name.toUpperCase()));
    for (let round = 0; round < rounds; round++) {
      const files: NewFile[] = [];
      while (files.length < perRound) {
        const name = `${random.pick(folders)}/${randomName(random)}`;
        if (seen.has(name.toUpperCase())) continue;
        seen.add(name.toUpperCase());
        const sizeBytes = random.oneIn(10)
          ? random.below(200 * KiB)
          : random.oneIn(2)
            ? random.below(900)
            : random.below(6000);
        files.push(newFile(name, random.bytes(sizeBytes)));
        model.set(name, sha256(files.at(-1)?.contents ?? Buffer.alloc(0)));
      }
      addTo(image, files);
      judgeVolume(image);
      for (const name of folders) {
        const listed = listedNames(image, name).sort();
        const expected = [...model.keys()].filter((one) => path.dirname(one) === name).map((one) => path.basename(one));
        expect(listed).toEqual(expected.sort());
        expect(withVolume(image, (volume) => volume.list(name))).toEqual(listed);
      }
    }
    expect([...readTree(image)].sort()).toEqual([...model].sort());
  },
);

it('a file goes into pieces where the volume has no long free run, and is refused where they are too many', (context) => {
  using folder = new TempFolder();
  const image = makeWindows(context, folder, 20, {
    sizeBytes: 16 * MiB,
    fill: (mountpoint) => {
      const small = (index: number): string => path.join(mountpoint, `small${index}`);
      for (let index = 0; index < 400; index++) fs.writeFileSync(small(index), Buffer.alloc(4 * KiB, index));
      const filler = fs.openSync(path.join(mountpoint, 'filler'), 'w');
      try {
        for (;;) fs.writeSync(filler, Buffer.alloc(4 * KiB, 1));
      } catch {
        // The volume is full: as it is meant.
      }
      fs.closeSync(filler);
      for (let index = 0; index < 400; index += 2) fs.rmSync(small(index));
    },
  });
  const random = seededTest('pieces');
  const before = readTree(image);
  const files = [newFile(`${drivers}/viostor.sys`, random.bytes(301 * KiB))];
  addTo(image, files);
  judgeAdded(image, before, files);
  expect(withVolume(image, (volume) => volume.locate(`${drivers}/viostor.sys`)).length).toBeGreaterThan(5);
  expect(() => addTo(image, [newFile(`${drivers}/vioscsi.sys`, random.bytes(900 * KiB))])).toThrow(
    /free clusters in at most 48 pieces are needed and not there; make room/,
  );
});

it('a file that is there is kept when it is the same, written over where it fits, and else refused', (context) => {
  using folder = new TempFolder();
  const random = seededTest('there already');
  const contents = random.bytes(20_000);
  const image = makeWindows(context, folder, 60, {
    fill: (mountpoint) => {
      const at = (name: string): string => path.join(mountpoint, drivers, name);
      fs.writeFileSync(at('viostor.sys'), contents);
      fs.writeFileSync(at('small.sys'), 'small');
      fs.writeFileSync(at('linked.sys'), contents);
      fs.linkSync(at('linked.sys'), path.join(mountpoint, 'elsewhere.sys'));
    },
  });
  const before = readTree(image);
  expect(addTo(image, [newFile(`${drivers}/VIOSTOR.SYS`, contents)])).toEqual({ patches: [], changes: [] });
  for (const sizeBytes of [20_000, 20_480, 5_000]) {
    const other = [newFile(`${drivers}/viostor.sys`, random.bytes(sizeBytes))];
    expect(addTo(image, other).changes.map(({ what }) => what)).toEqual(['replace a driver']);
    judgeVolume(image);
    expect([...readTree(image)].sort()).toEqual(
      [...new Map([...before, [`${drivers}/viostor.sys`, sha256(other[0]?.contents ?? contents)]])].sort(),
    );
    expect(fs.statSync(image).size).toBe(64 * MiB);
  }
  for (const [name, sizeBytes, reason] of [
    ['viostor.sys', 20_481, 'has room for 20480 bytes where 20481 are needed'],
    ['small.sys', 6, 'has room for 0 bytes where 6 are needed'],
    ['linked.sys', 100, 'has other names elsewhere'],
  ] as const)
    expect(() => addTo(image, [newFile(`${drivers}/${name}`, random.bytes(sizeBytes))])).toThrow(
      `${drivers}/${name}: is there with other contents and ${reason}; install`,
    );
});

/** Of a journal that Windows has open. */
function restartPageInUse(): Buffer {
  const page = Buffer.alloc(4096);
  page.write('RSTR');
  page.writeUInt16LE(0x30, 24);
  page.writeUInt16LE(0, 0x30 + 12);
  return page;
}

/** Has all bits of a bitmap be something else for a while. */
function withBits(image: string, of: 'records' | 'clusters', byte: number, use: () => void): void {
  const { at, sizeBytes } = placeOfBits(image, of);
  const before = Buffer.from(fs.readFileSync(image).subarray(at, at + sizeBytes));
  applyTo(image, [{ offsetBytes: at, before, after: Buffer.alloc(sizeBytes, byte) }]);
  use();
  applyTo(image, [{ offsetBytes: at, before, after: before }]);
}

it('nothing is added to a volume that is dirty or in use, that contradicts itself, that has no free record or no such folder', (context) => {
  using folder = new TempFolder();
  skipWithout(context, judgePrograms);
  const file = newFile('/folder/viostor.sys', Buffer.alloc(10_000, 1));
  const { image } = makeVolume(context, folder, { files: { 'folder/a file': 'x' } });
  withBits(image, 'records', 0xff, () =>
    expect(() => addTo(image, [file])).toThrow(
      /NTFS \$MFT: has no free file record, and is not made longer; start the guest/,
    ),
  );
  withBits(image, 'clusters', 0, () =>
    expect(() => addTo(image, [file])).toThrow(
      /calls cluster 0 free, which is in use by file record 7; have Windows check/,
    ),
  );
  expect(() => addTo(image, [{ ...file, path: '/nowhere/viostor.sys' }])).toThrow(
    '/nowhere/viostor.sys: the guest has no such folder',
  );
  expect(() => addTo(image, [{ ...file, path: '/folder/a long name.sys' }])).toThrow('only names of 8 and 3 letters');
  const [log] = withVolume(image, (volume) => volume.locate('/$LogFile'));
  const at = log?.volumeOffset ?? 0;
  const before = Buffer.from(fs.readFileSync(image).subarray(at, at + 4096));
  applyTo(image, [{ offsetBytes: at, before, after: restartPageInUse() }]);
  expect(() => addTo(image, [file])).toThrow(/journal .* ends without a clean dismount and may write over a file/);
  applyTo(image, [{ offsetBytes: at, before, after: before }]);
  // Without -n, ntfsfix marks the volume dirty.
  execFileSync('ntfsfix', [image], { stdio: 'pipe' });
  expect(() => addTo(image, [file])).toThrow(/marked dirty, and no file is added to it; start the guest/);
});
