/** GUIDs: text form in lower case, binary form in Microsoft's mixed-endian order. */
import { createHash, randomUUID } from 'node:crypto';
import { UsageError } from '../base/errors.ts';

/** 36 characters, lower case, no braces. */
export type Guid = string;

export const nilGuid: Guid = '00000000-0000-0000-0000-000000000000';

export function randomGuid(): Guid {
  return randomUUID();
}

/**
 * A GUID made from a name: the same `namespace` and `name` always give the same GUID (RFC 9562 version 8, SHA-256).
 */
export function namedGuid(namespace: Guid, name: string): Guid {
  const digest = createHash('sha256').update(guidToBytes(namespace)).update(name).digest().subarray(0, 16);
  digest[6] = ((digest[6] ?? 0) & 0x0f) | 0x80;
  digest[8] = ((digest[8] ?? 0) & 0x3f) | 0x80;
  return hyphenate(digest.toString('hex'));
}

/** Binary order: the first three groups little-endian, the rest as written. */
export function guidToBytes(guid: Guid): Uint8Array {
  const plain = guid.replaceAll('-', '');
  if (!/^[0-9a-f]{32}$/i.test(plain)) throw new UsageError(`"${guid}" is not a GUID`);
  return swapGroups(Buffer.from(plain, 'hex'));
}

export function guidFromBytes(bytes: Uint8Array): Guid {
  return hyphenate(Buffer.from(swapGroups(bytes)).toString('hex'));
}

function swapGroups(bytes: Uint8Array): Uint8Array {
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return Uint8Array.from(order, (index) => bytes[index] ?? 0);
}

function hyphenate(hex: string): Guid {
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
