/**
 * Test vectors: an encrypted chain and its consolidation, as they were made once, with their keys. We read them, and so does a reader in Python
 * that knows only the page native-notes/image-format.md.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { credentialFromFile } from '../../../src/backup/crypto/credential.ts';
import { verifyChain } from '../../../src/backup/care/verify.ts';
import { TempFolder } from '../../temp-folder.ts';
import { Forger } from '../forger.ts';
import { faultsOf } from '../image-holds.ts';
import { ringOf } from '../keys.ts';

const vectors = path.join(import.meta.dirname, 'vectors');
const reader = path.join(import.meta.dirname, 'independent_reader.py');
const missing = whatIsMissing();

let folder: TempFolder;
let disk: Buffer;

beforeAll(() => {
  folder = new TempFolder();
  for (const name of fs.readdirSync(vectors)) {
    const bytes = fs.readFileSync(path.join(vectors, name));
    if (name.endsWith('.gz')) folder.write(name.replace(/\.gz$/, ''), gunzipSync(bytes));
    else fs.chmodSync(folder.write(name, bytes), 0o600);
  }
  // Apart, so that it is not taken for the chain's own newest image.
  fs.mkdirSync(folder.file('alone'));
  fs.renameSync(folder.file('consolidated.spf'), folder.file('alone/consolidated.spf'));
  disk = fs.readFileSync(folder.file('disk.raw'));
});
afterAll(() => folder.remove());

describe.each(['2.spi', 'alone/consolidated.spf'])('the vector %s', (name) => {
  it.each(['key file', 'passphrase'] as const)('is read with the %s, and is sound', (kind) => {
    const keys = ringOf(credentialFromFile(kind, folder.file(kind === 'key file' ? 'key' : 'passphrase')));
    using opened = closing(openChainDisk(folder.file(name), undefined, undefined, keys));
    const found = Buffer.alloc(opened.value.sizeBytes);
    opened.value.read(found, 0);
    expect(found.equals(disk)).toBe(true);
    expect(verifyChain(folder.file(name), { keys })).toMatchObject({ faults: 0, proved: true });
    expect(faultsOf(folder.file(name))).toEqual([]);
  });

  it.for(['--key-file', '--passphrase-file'])('is read by the independent reader with %s', (option, ctx) => {
    if (missing !== undefined) ctx.skip(missing);
    const key = folder.file(option === '--key-file' ? 'key' : 'passphrase');
    const said = execFileSync('python3', [reader, option, key, folder.file(name)], { encoding: 'utf8' });
    expect(said).toBe(`${createHash('sha256').update(disk).digest('hex')} ${disk.length}\n`);
  });

  it('is refused by the independent reader with a key file that is not its own, and with none', (ctx) => {
    if (missing !== undefined) ctx.skip(missing);
    const other = folder.write('other', Buffer.alloc(32, 7));
    for (const [args, why] of [
      [['--key-file', other], /opens none of its slots/],
      [[], /there is no key/],
    ] as const)
      expect(() => execFileSync('python3', [reader, ...args, folder.file(name)], { stdio: 'pipe' })).toThrow(why);
  });
});

it('a record that was brought back is found by the independent reader too, with its position', (ctx) => {
  if (missing !== undefined) ctx.skip(missing);
  const old = new Forger(fs.readFileSync(folder.file('0.spf')));
  const forged = new Forger(fs.readFileSync(folder.file('alone/consolidated.spf')));
  forged.putRecord(3, old.stored(3), old.entry(3));
  fs.mkdirSync(folder.file('forged'));
  const file = folder.write('forged/forged.spf', forged.finish());
  expect(() => execFileSync('python3', [reader, '--key-file', folder.file('key'), file], { stdio: 'pipe' })).toThrow(
    /block 3: is not the newest/,
  );
});

function whatIsMissing(): string | undefined {
  try {
    execFileSync('python3', ['-c', 'import ctypes, cryptography; ctypes.CDLL("libzstd.so.1")'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'python3, its package cryptography or libzstd.so.1 is not here';
  }
}
