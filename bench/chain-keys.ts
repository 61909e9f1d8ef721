/** The key of the encrypted chain that is measured: no secret. */
import { KeyRing } from '../src/backup/crypto/key-ring.ts';
import type { Credential } from '../src/backup/crypto/key-slots.ts';

export const chainCredential: Credential = { kind: 'key file', secret: Buffer.alloc(64, 'a key for measuring') };

/** What opens the plain chain and the encrypted one. */
export function chainKeys(): KeyRing {
  return new KeyRing({ credentials: [chainCredential], chains: [] });
}
