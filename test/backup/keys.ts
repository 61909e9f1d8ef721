/** Keys for tests: key files, which cost nothing to open, and passphrases. */
import { createHash } from 'node:crypto';
import { KeyRing } from '../../src/backup/crypto/key-ring.ts';
import type { Credential } from '../../src/backup/crypto/key-slots.ts';

/** A key file whose bytes come from its name. */
export function keyFile(name: string): Credential {
  return { kind: 'key file', secret: createHash('sha512').update(name).digest() };
}

export function passphrase(text: string): Credential {
  return { kind: 'passphrase', secret: Buffer.from(text) };
}

export function ringOf(...credentials: Credential[]): KeyRing {
  return new KeyRing({ credentials, chains: [] });
}
