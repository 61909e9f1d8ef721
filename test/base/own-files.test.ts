/** What somebody else has put where a mount keeps its own is refused, and never written through. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ForbiddenError } from '../../src/base/errors.ts';
import { openOwnFile, ownFolder } from '../../src/base/own-files.ts';
import { TempFolder } from '../temp-folder.ts';

const { O_WRONLY, O_APPEND } = fs.constants;
const isRoot = process.getuid?.() === 0;

function opens(file: string): () => void {
  return () => fs.closeSync(openOwnFile(file, O_WRONLY | O_APPEND, 0o600));
}

describe('a folder of one’s own', () => {
  it('is made, for nobody else, and taken again', () => {
    using folder = new TempFolder();
    ownFolder(folder.file('veneer'));
    ownFolder(folder.file('veneer'));
    expect(fs.statSync(folder.file('veneer')).mode & 0o777).toBe(0o700);
  });

  it('is refused where it is a link, a file, or others may use it', () => {
    using folder = new TempFolder();
    fs.mkdirSync(folder.file('elsewhere'), { mode: 0o700 });
    fs.symlinkSync(folder.file('elsewhere'), folder.file('link'));
    expect(() => ownFolder(folder.file('link'))).toThrow(ForbiddenError);
    fs.mkdirSync(folder.file('open'));
    fs.chmodSync(folder.file('open'), 0o750);
    expect(() => ownFolder(folder.file('open'))).toThrow(/open: others may use it, .* chmod 700/);
  });

  it('is refused where others may rename it', () => {
    using folder = new TempFolder();
    fs.mkdirSync(folder.file('all'));
    fs.chmodSync(folder.file('all'), 0o777);
    expect(() => ownFolder(folder.file('all/veneer'))).toThrow(/others may rename what is in it/);
    fs.chmodSync(folder.file('all'), 0o1777);
    ownFolder(folder.file('all/veneer'));
  });

  it.skipIf(!isRoot)('is refused where it belongs to somebody else', () => {
    using folder = new TempFolder();
    fs.mkdirSync(folder.file('veneer'), { mode: 0o700 });
    fs.chownSync(folder.file('veneer'), 61_001, 61_001);
    expect(() => ownFolder(folder.file('veneer'))).toThrow(/veneer: belongs to user 61001; remove it/);
  });
});

describe('a file of one’s own', () => {
  it('is made with its mode, and gets it again where it had a wider one', () => {
    using folder = new TempFolder();
    const file = folder.file('log');
    opens(file)();
    fs.chmodSync(file, 0o644);
    opens(file)();
    expect(fs.statSync(file).mode & 0o777).toBe(0o600);
  });

  it('is not opened through a link, of either kind', () => {
    using folder = new TempFolder();
    const target = folder.write('target', 'kept');
    fs.symlinkSync(target, folder.file('symlink'));
    fs.linkSync(target, folder.file('hard link'));
    fs.symlinkSync(folder.file('nowhere'), folder.file('dangling'));
    for (const name of ['symlink', 'hard link', 'dangling'])
      expect(opens(folder.file(name)), name).toThrow(ForbiddenError);
    expect(fs.readFileSync(target, 'utf8')).toBe('kept');
    expect(folder.names()).not.toContain('nowhere');
  });

  it.skipIf(!isRoot)('is refused where it belongs to somebody else', () => {
    using folder = new TempFolder();
    const file = folder.write('log', '');
    fs.chownSync(file, 61_001, 61_001);
    expect(opens(file)).toThrow(/log: belongs to user 61001; remove it/);
  });
});
