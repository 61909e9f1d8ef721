/** The signature of a commit: a holder of the chain's key made it, and with it the superblock, root and provenance whose hashes it has. */
import { timingSafeEqual } from 'node:crypto';
import { VeneerError } from '../../base/errors.ts';
import * as format from '../format/layout.ts';
import type { ChainKey } from './seal.ts';

/** @throws VeneerError (INTEGRITY) when nobody with the key made this commit block */
export function checkCommitSignature(commit: Uint8Array, key: ChainKey, name: string): void {
  const found = format.commit.parse(commit).hmac;
  if (timingSafeEqual(found, commitSignature(commit, key))) return;
  throw new VeneerError(
    'INTEGRITY',
    `${name}: the signature of its commit does not hold; it was made or changed by someone without the key`,
  );
}

/** The signature that belongs into a commit block. */
export function commitSignature(commit: Uint8Array, key: ChainKey): Uint8Array {
  return key.hmac('veneer commit', commit.subarray(0, format.commit.offsetOf('hmac')));
}
