/** A passphrase is what its user typed: an editor's line break at its end is none of it, and nothing else of it is changed. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { UsageError } from '../../../src/base/errors.ts';
import { credentialFromBytes, credentialFromFile } from '../../../src/backup/crypto/credential.ts';
import { TempFolder } from '../../temp-folder.ts';

const secretOf = (kind: 'passphrase' | 'key file', text: string): string =>
  Buffer.from(credentialFromBytes(kind, Buffer.from(text), 'given').secret).toString();

it.each([
  ['with a line break at its end', 'correct horse\n', 'correct horse'],
  ['without one', 'correct horse', 'correct horse'],
  ['with an empty line behind', 'correct horse\n\n', 'correct horse\n'],
  ['with spaces around', ' correct horse ', ' correct horse '],
])('a passphrase %s is read', (_, written, meant) => {
  expect(secretOf('passphrase', written)).toBe(meant);
  using folder = new TempFolder();
  const file = folder.write('passphrase', written);
  fs.chmodSync(file, 0o600);
  expect(Buffer.from(credentialFromFile('passphrase', file).secret).toString()).toBe(meant);
});

it('a key file is all of its bytes, and enough of them', () => {
  const random = `${'r'.repeat(31)}\n`;
  expect(secretOf('key file', random)).toBe(random);
  expect(() => secretOf('key file', 'short')).toThrow(UsageError);
  for (const nothing of ['', '\n']) expect(() => secretOf('passphrase', nothing)).toThrow(/is empty/);
});

it('a file that others may read is refused with the remedy', () => {
  using folder = new TempFolder();
  const file = folder.write('passphrase', 'correct horse');
  fs.chmodSync(file, 0o640);
  expect(() => credentialFromFile('passphrase', file)).toThrow(/mode 0640\); run: chmod 600/);
});
