/** Short counts as the kernel really gives them: pipes, and a limit on a file's size. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { CapacityError, UnavailableError } from '../../src/base/errors.ts';
import { readFully, readFullyInto, writeFully } from '../../src/base/full-io.ts';
import { seededTest, type Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

afterEach(() => {
  vi.restoreAllMocks();
  syncBuiltinESMExports();
});

/** From now on each read and write moves at most some of what was asked for; the bytes move for real. */
function beShort(random: Seeded): void {
  const readSync = fs.readSync.bind(fs) as (...args: unknown[]) => number;
  const writeSync = fs.writeSync.bind(fs) as (...args: unknown[]) => number;
  const less = (length: unknown): number => random.between(1, Number(length));
  vi.spyOn(fs, 'readSync').mockImplementation((...[fd, bytes, start, length, at]: unknown[]) =>
    readSync(fd, bytes, start, less(length), at),
  );
  vi.spyOn(fs, 'writeSync').mockImplementation((...[fd, bytes, start, length, at]: unknown[]) =>
    writeSync(fd, bytes, start, less(length), at),
  );
  syncBuiltinESMExports();
}

describe('short counts', () => {
  it('are gone on from, in reads and in writes', () => {
    const random = seededTest('short counts');
    using folder = new TempFolder();
    const fd = fs.openSync(folder.file('file'), 'w+');
    beShort(random);
    for (let round = 0; round < 50; round++) {
      const contents = random.bytes(random.between(0, 20_000));
      const offset = random.below(100_000);
      writeFully(fd, contents, offset, 'file');
      const back = Buffer.alloc(contents.length + 16, 0x5c);
      readFully(fd, back.subarray(8, 8 + contents.length), offset, 'file');
      expect(back.subarray(8, 8 + contents.length).equals(contents)).toBe(true);
      expect([...back.subarray(0, 8), ...back.subarray(-8)].every((byte) => byte === 0x5c)).toBe(true);
    }
    fs.closeSync(fd);
  });

  it('are gone on from where several targets are filled at once', () => {
    const random = seededTest('short vectors');
    using folder = new TempFolder();
    const contents = random.bytes(100_000);
    const fd = fs.openSync(folder.write('file', contents), 'r');
    beShort(random);
    const readv = fs.readvSync.bind(fs);
    for (let round = 0; round < 100; round++) {
      vi.spyOn(fs, 'readvSync').mockImplementation((of, targets, at) => {
        const some = targets.slice(0, random.between(1, targets.length));
        return readv(of, [...some.slice(0, -1), (some.at(-1) as Buffer).subarray(0, random.below(5000))], at);
      });
      syncBuiltinESMExports();
      const targets = Array.from({ length: random.between(1, 8) }, () => Buffer.alloc(random.below(9000), 0x5c));
      const total = targets.reduce((sum, { length }) => sum + length, 0);
      const offset = random.below(contents.length - total);
      readFullyInto(fd, targets, offset, 'file');
      expect(Buffer.concat(targets).equals(contents.subarray(offset, offset + total))).toBe(true);
      vi.mocked(fs.readvSync).mockRestore();
      syncBuiltinESMExports();
    }
    expect(() => readFullyInto(fd, [Buffer.alloc(10), Buffer.alloc(10)], 99_985, 'disk.spf')).toThrow(
      /^disk\.spf: ends at byte 100000, 5 bytes short/,
    );
    fs.closeSync(fd);
  });

  it('of nothing are an error, and no endless loop', () => {
    using folder = new TempFolder();
    const fd = fs.openSync(folder.file('file'), 'w+');
    vi.spyOn(fs, 'writeSync').mockReturnValue(0);
    syncBuiltinESMExports();
    expect(() => writeFully(fd, Buffer.alloc(10), 5, 'file')).toThrow(/wrote 0 of 10 bytes at byte 5/);
    fs.closeSync(fd);
  });
});

describe('a read', () => {
  it('past the end of a file is an error that says how much is missing, not zeros', () => {
    using folder = new TempFolder();
    const fd = fs.openSync(folder.write('file', Buffer.alloc(100)), 'r');
    expect(() => readFully(fd, Buffer.alloc(10), 95, 'disk.spf')).toThrow(UnavailableError);
    expect(() => readFully(fd, Buffer.alloc(10), 95, 'disk.spf')).toThrow(
      /^disk\.spf: ends at byte 100, 5 bytes short/,
    );
    fs.closeSync(fd);
  });

  it('that fails is an error that may be tried again, with the system call as its cause', () => {
    using folder = new TempFolder();
    const fd = fs.openSync(folder.path, 'r');
    let caught: unknown;
    try {
      readFully(fd, Buffer.alloc(10), 0, 'folder');
    } catch (error) {
      caught = error;
    }
    fs.closeSync(fd);
    expect(caught).toMatchObject({ code: 'UNAVAILABLE', data: { retryable: true }, cause: { code: 'EISDIR' } });
  });
});

describe('a write', () => {
  it('where there is no room is an error that says so', () => {
    const fd = fs.openSync('/dev/full', 'w');
    expect(() => writeFully(fd, Buffer.alloc(10), 0, 'disk.spf')).toThrow(CapacityError);
    expect(() => writeFully(fd, Buffer.alloc(10), 0, 'disk.spf')).toThrow(/free some space/);
    fs.closeSync(fd);
  });

  it('that the kernel cuts short at a limit is an error, with all before the limit written', () => {
    using folder = new TempFolder();
    const script = folder.write(
      'write.ts',
      `import fs from 'node:fs';
       import { writeFully } from ${JSON.stringify(path.resolve(import.meta.dirname, '../../src/base/full-io.ts'))};
       process.on('SIGXFSZ', () => undefined);
       const fd = fs.openSync(process.argv[2] ?? '', 'w');
       try { writeFully(fd, Buffer.alloc(9000, 7), 0, 'disk.spf'); } catch (error) { console.log(String(error)); }`,
    );
    // In units of 1024 bytes.
    const limited = ['-c', 'ulimit -f 5 && exec "$0" "$@"', process.execPath, script, folder.file('file')];
    const run = spawnSync('bash', limited, { encoding: 'utf8' });
    expect(run.stdout, run.stderr).toMatch(
      /^TooLargeError: disk\.spf: cannot write at byte 5120: its file system keeps no file so large/,
    );
    expect(fs.readFileSync(folder.file('file')).equals(Buffer.alloc(5120, 7))).toBe(true);
  });

  it('to what may not be written is an error', () => {
    using folder = new TempFolder();
    const fd = fs.openSync(folder.write('file', 'x'), 'r');
    expect(() => writeFully(fd, Buffer.alloc(1), 0, 'file')).toThrow(UnavailableError);
    fs.closeSync(fd);
  });
});
