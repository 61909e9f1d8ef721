/** A sealed data file by itself: against plain bytes, and after crashes in the middle of what changes its end. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { unitBytes } from '../../src/replacement/layout.ts';
import { newPresence, PresenceMap } from '../../src/replacement/presence-map.ts';
import { SealedFile, sealKeyBytes, storedBytesOf } from '../../src/replacement/sealed-file.ts';
import { expectSameBytes } from '../disk/model-disk.ts';
import { Seeded, seededTest, soak } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { FaultyFiles } from './faulty-files.ts';

const pageBytes = 4096;
const key = Uint8Array.from({ length: sealKeyBytes }, (_, index) => index + 1);
const steps = soak ? 5000 : 250;

class OpenSealed implements Disposable {
  readonly path: string;
  readonly fd: number;
  readonly file: SealedFile;

  constructor(folder: TempFolder, flags = 'w+') {
    this.path = folder.file('data');
    this.fd = fs.openSync(this.path, flags);
    this.file = new SealedFile(this.fd, this.path, key, new PresenceMap(newPresence(1)));
  }

  get stored(): Buffer {
    return fs.readFileSync(this.path);
  }

  read(offset = 0, lengthBytes = this.file.sizeBytes - offset): Buffer {
    const bytes = Buffer.alloc(lengthBytes, 0xa5);
    this.file.read(bytes, offset);
    return bytes;
  }

  /** Its length says what it holds, and nothing but zeros is behind that, also once it grows. */
  expectCleanEnd(): void {
    const size = this.file.sizeBytes;
    expect(this.stored.length).toBe(storedBytesOf(size));
    const pages = Math.ceil(size / pageBytes) * pageBytes;
    expect(this.stored.subarray(pages).every((byte) => byte === 0)).toBe(true);
    fs.ftruncateSync(this.fd, storedBytesOf(pages + 1));
    expect(
      this.read(size).every((byte) => byte === 0),
      'what shows when it grows',
    ).toBe(true);
    fs.ftruncateSync(this.fd, storedBytesOf(size));
  }

  [Symbol.dispose](): void {
    fs.closeSync(this.fd);
  }
}

describe('a sealed file', () => {
  it('holds what plain bytes would, and is clean behind its end', () => {
    const random = seededTest('sealed pages');
    using folder = new TempFolder();
    using sealed = new OpenSealed(folder);
    let model = Buffer.alloc(0);
    for (let step = 0; step < steps; step++) {
      // At the borders of pages and beside them.
      const place = (): number => Math.max(0, random.below(20) * pageBytes + random.pick([0, 0, -1, 1, 511, 512, 700]));
      const [from, to] = [place(), place()].sort((a, b) => a - b) as [number, number];
      const kind = random.pick(['write', 'write', 'zero', 'resize'] as const);
      // In one unit, as whoever writes does.
      const end = Math.min(
        to,
        (Math.floor(from / unitBytes) + 1) * unitBytes,
        kind === 'zero' ? model.length : Infinity,
      );
      if (kind === 'resize') {
        sealed.file.resize(to);
        model = Buffer.concat([model.subarray(0, to), Buffer.alloc(Math.max(0, to - model.length))]);
      } else if (end > from) {
        const bytes = kind === 'zero' ? Buffer.alloc(end - from) : random.bytes(end - from);
        if (kind === 'zero') sealed.file.zero(from, end - from);
        else sealed.file.write(bytes, from);
        model = Buffer.concat([model, Buffer.alloc(Math.max(0, end - model.length))]);
        bytes.copy(model, from);
      }
      const what = `${kind} of ${from} to ${end}`;
      expectSameBytes(sealed.read(), model, what);
      const at = random.below(model.length + 1);
      expectSameBytes(sealed.read(at), model.subarray(at), `from ${at} after ${what}`);
      sealed.expectCleanEnd();
    }
  });

  it('of which whole pages are made zero has holes there', () => {
    using folder = new TempFolder();
    using sealed = new OpenSealed(folder);
    sealed.file.write(new Seeded('holes').bytes(4 * pageBytes), 0);
    sealed.file.zero(pageBytes - 10, 2 * pageBytes + 20);
    expect(sealed.stored.subarray(pageBytes, 3 * pageBytes).every((byte) => byte === 0)).toBe(true);
    expect([sealed.file.nextHole(0), sealed.file.nextData(pageBytes)]).toEqual([pageBytes, 3 * pageBytes]);
  });

  it('that nothing has happened to is left as it is by the next open', () => {
    using folder = new TempFolder();
    using sealed = new OpenSealed(folder);
    for (const size of [0, 1, 512, pageBytes, pageBytes + 512, 3 * pageBytes - 1]) {
      sealed.file.resize(0);
      sealed.file.write(new Seeded(`size ${size}`).bytes(size), 0);
      const before = sealed.stored;
      expect(sealed.file.settledBytes).toBe(size);
      fs.utimesSync(sealed.path, 1, 1);
      sealed.file.settle();
      expect(sealed.stored).toEqual(before);
      expect(fs.statSync(sealed.path).mtimeMs).toBe(1000);
    }
  });
});

describe('after a crash a sealed file', () => {
  it.each([512, 1024, pageBytes])(
    'whose new length was lost in the %i bytes behind a page holds all whole pages',
    (behind) => {
      using folder = new TempFolder();
      using sealed = new OpenSealed(folder);
      const written = new Seeded('torn').bytes(5 * pageBytes);
      sealed.file.write(written, 0);
      const held = 3 * pageBytes;
      fs.ftruncateSync(sealed.fd, held + behind);
      expect(sealed.file.settledBytes).toBe(held);
      sealed.file.settle();
      expect(sealed.file.sizeBytes).toBe(held);
      expectSameBytes(sealed.read(), written.subarray(0, held), 'whole pages');
      sealed.expectCleanEnd();
    },
  );

  it('in the middle of a cut is cut, and shows nothing of what was cut off', () => {
    for (const cutBytes of [0, 100, pageBytes, pageBytes + 1, 2 * pageBytes - 512, 3 * pageBytes]) {
      using folder = new TempFolder();
      using sealed = new OpenSealed(folder);
      const written = new Seeded('cut').bytes(3 * pageBytes);
      // Before the length was changed, and after it.
      for (const length of [storedBytesOf(written.length), storedBytesOf(cutBytes)]) {
        sealed.file.write(written, 0);
        fs.ftruncateSync(sealed.fd, length);
        sealed.file.settle(cutBytes);
        expectSameBytes(sealed.read(), written.subarray(0, cutBytes), `cut to ${cutBytes}`);
        sealed.expectCleanEnd();
      }
    }
  });

  it('that was to be cut where it does not reach any more is as long as it is', () => {
    using folder = new TempFolder();
    using sealed = new OpenSealed(folder);
    const written = new Seeded('short').bytes(700);
    sealed.file.write(written, 0);
    sealed.file.settle(5 * pageBytes);
    expectSameBytes(sealed.read(), written, 'the file');
  });

  it('with something behind the end of its last page, or behind its pages, holds neither', () => {
    using folder = new TempFolder();
    using sealed = new OpenSealed(folder);
    const written = new Seeded('behind').bytes(2 * pageBytes);
    sealed.file.write(written, 0);
    // One page and 100 bytes, of a last page that is full, and a rest that is no zeros.
    fs.ftruncateSync(sealed.fd, storedBytesOf(pageBytes + 100));
    fs.writeSync(sealed.fd, Buffer.alloc(100, 0xee), 0, 100, 2 * pageBytes);
    sealed.file.settle();
    expectSameBytes(sealed.read(), written.subarray(0, pageBytes + 100), 'the file');
    sealed.expectCleanEnd();
  });
});

it('a power loss while a sealed file is cut leaves it whole, or cut with nothing behind its end', () => {
  const random = seededTest('power loss in a cut of sealed pages');
  const seen = { whole: 0, cut: 0 };
  for (let round = 0; round < (soak ? 500 : 25); round++) {
    using folder = new TempFolder();
    const written = random.bytes(3 * pageBytes + 100);
    const cutBytes = pageBytes * random.below(3) + random.between(1, 511);
    let isCutting = false;
    const look = (): void => {
      if (!isCutting) return;
      isCutting = false;
      using lost = new TempFolder();
      files.losePower(random, lost.path);
      using after = new OpenSealed(lost, 'r+');
      const isCut = after.file.sizeBytes === cutBytes;
      seen[isCut ? 'cut' : 'whole']++;
      after.file.settle();
      expectSameBytes(after.read(), isCut ? written.subarray(0, cutBytes) : written, `cut to ${cutBytes}`);
      after.expectCleanEnd();
      isCutting = true;
    };
    using files = new FaultyFiles(folder.path, look);
    using sealed = new OpenSealed(folder);
    sealed.file.write(written, 0);
    fs.fsyncSync(sealed.fd);
    syncNames(folder);
    isCutting = true;
    sealed.file.resize(cutBytes);
    isCutting = false;
    // The next growth shows nothing of what was cut off.
    sealed.file.resize(written.length);
    using grown = new TempFolder();
    files.losePower(random, grown.path);
    using after = new OpenSealed(grown, 'r+');
    after.file.settle();
    const shown = Buffer.concat([written.subarray(0, cutBytes), Buffer.alloc(written.length - cutBytes)]);
    expectSameBytes(after.read(), shown.subarray(0, after.file.sizeBytes), `grown after a cut to ${cutBytes}`);
  }
  expect(Math.min(seen.whole, seen.cut)).toBeGreaterThan(10);
});

it('what the open after a power loss has made true stays true after the next one', () => {
  const random = seededTest('power loss after a settled one');
  for (let round = 0; round < 20; round++) {
    using folder = new TempFolder();
    const held = 2 * pageBytes;
    {
      using torn = new OpenSealed(folder);
      torn.file.write(random.bytes(4 * pageBytes), 0);
      fs.ftruncateSync(torn.fd, held + 512 * random.between(1, 8));
    }
    using files = new FaultyFiles(folder.path, () => undefined);
    using sealed = new OpenSealed(folder, 'r+');
    sealed.file.settle();
    const found = sealed.read();
    expect(found.length).toBe(held);
    using lost = new TempFolder();
    files.losePower(random, lost.path);
    using after = new OpenSealed(lost, 'r+');
    expectSameBytes(after.read(), found, 'the file after a further power loss');
    after.expectCleanEnd();
  }
});

/** So that the file has its name after a power loss. */
function syncNames(folder: TempFolder): void {
  const fd = fs.openSync(folder.path, 'r');
  fs.fsyncSync(fd);
  fs.closeSync(fd);
}
