/** The key of one sealed data file, derived from its chain's for its plugin file and this very copy of it; and how a wrong one is told. */
import { timingSafeEqual } from 'node:crypto';
import { ForbiddenError, FormatError } from '../base/errors.ts';
import { guidToBytes, nilGuid, type Guid } from '../bytes/guid.ts';
import { ChainKey, type ThreadKey } from '../backup/crypto/seal.ts';
import { keyCheckBytes, type MapHeader } from './layout.ts';
import { sealKeyBytes } from './sealed-file.ts';

/** Plain values for the threads of this process. The key goes to no file, argument, log or message. */
export interface ReplacementSeal {
  readonly id: Guid;
  readonly key: Uint8Array;
  /** Tells this key from others, and tells nothing of it. */
  readonly check: Uint8Array;
}

/** What the header of a plain data file has in the fields of a seal. */
export const noSeal = { id: nilGuid, check: new Uint8Array(keyCheckBytes) } as const;

export function deriveSeal(key: ThreadKey, pluginId: Guid, id: Guid): ReplacementSeal {
  const context = Buffer.concat([guidToBytes(pluginId), guidToBytes(id)]);
  const material = new ChainKey(key).material('veneer replacement', context, sealKeyBytes + keyCheckBytes);
  return { id, key: material.subarray(0, sealKeyBytes), check: material.subarray(sealKeyBytes) };
}

/**
 * The seal of a data file that there is already; undefined for a plain one.
 * @param isSealed what the plugin file says: never silently the other
 * @throws FormatError when the map says otherwise; ForbiddenError without the key, or with another one
 */
export function sealOf(
  header: MapHeader,
  isSealed: boolean,
  key: ThreadKey | undefined,
  mapPath: string,
): ReplacementSeal | undefined {
  if (isSealed !== (header.sealed === 1)) {
    const [is, should] = isSealed ? ['plain', 'sealed'] : ['sealed', 'plain'];
    throw new FormatError(
      mapPath,
      'sealed',
      330,
      `what was written is ${is}, and the plugin file wants it ${should}; put the plugin file back that it was made with`,
    );
  }
  if (!isSealed) return undefined;
  const seal = deriveSeal(requireKey(key, mapPath), header.pluginId, header.sealId);
  if (timingSafeEqual(seal.check, header.keyCheck)) return seal;
  throw new ForbiddenError(`${mapPath}: the key that was given is not the one that what was written is sealed with`);
}

export function requireKey(key: ThreadKey | undefined, name: string): ThreadKey {
  if (key !== undefined) return key;
  throw new ForbiddenError(`${name}: what is written is sealed; give the key of its image`);
}
