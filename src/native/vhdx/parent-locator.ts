/** The parent locator of a differencing VHDX ([MS-VHDX] 2.6.2.6): which file is below it, by identity and by paths. */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { nilGuid, type Guid } from '../../bytes/guid.ts';
import { parentLocatorEntry, parentLocatorHeader, vhdxLocatorType } from './layout.ts';

/** How the parent is found (2.6.2.6.3). The paths are as the child's writer knew them: any of them may be missing or stale. */
export interface ParentLocator {
  /** The parent's DataWriteGuid when the child was made. */
  readonly parentLinkage: Guid;
  /** A second one that is as good, while a merge is under way. */
  readonly parentLinkage2?: Guid;
  /** From the child's folder, in Windows' spelling. */
  readonly relativePath?: string;
  readonly volumePath?: string;
  readonly absoluteWin32Path?: string;
}

/** More than the specification has, and few enough to look through. */
const maxKeys = 64;

/**
 * @param item all of the metadata item
 * @param offset where the item lies in the file, for messages
 * @throws FormatError when texts lie outside the item, a key is there twice, or the linkage is missing
 * @throws UnsupportedError when the parent is no VHDX
 */
export function parseParentLocator(item: Uint8Array, offset: number): ParentLocator {
  const { locatorType, keyValueCount } = parentLocatorHeader.parse(item);
  if (locatorType !== vhdxLocatorType)
    throw new UnsupportedError(`VHDX: parent locators of type ${locatorType} are not known`);
  if (keyValueCount > maxKeys) {
    throw new FormatError('VHDX parent locator', 'keyValueCount', offset, `${keyValueCount} is more than ${maxKeys}`);
  }
  const values = new Map<string, string>();
  for (let index = 0; index < keyValueCount; index++) {
    const at = parentLocatorHeader.sizeBytes + index * parentLocatorEntry.sizeBytes;
    const entry = parentLocatorEntry.parse(item, at);
    const key = textOf(item, entry.keyOffset, entry.keyLengthBytes, offset + at);
    if (values.has(key))
      throw new FormatError('VHDX parent locator entry', 'key', offset + at, `${JSON.stringify(key)} is there twice`);
    values.set(key, textOf(item, entry.valueOffset, entry.valueLengthBytes, offset + at));
  }
  const parentLinkage = guidOf(values.get('parent_linkage'), 'parent_linkage', offset);
  if (parentLinkage === undefined) throw new FormatError('VHDX parent locator', 'parent_linkage', offset, 'is missing');
  const parentLinkage2 = guidOf(values.get('parent_linkage2'), 'parent_linkage2', offset);
  const relativePath = values.get('relative_path');
  const volumePath = values.get('volume_path');
  const absoluteWin32Path = values.get('absolute_win32_path');
  return {
    parentLinkage,
    ...(parentLinkage2 === undefined || parentLinkage2 === nilGuid ? {} : { parentLinkage2 }),
    ...(relativePath === undefined ? {} : { relativePath }),
    ...(volumePath === undefined ? {} : { volumePath }),
    ...(absoluteWin32Path === undefined ? {} : { absoluteWin32Path }),
  };
}

/** The metadata item that names a VHDX as parent. Keys are those of 2.6.2.6.3. */
export function encodeParentLocator(keys: Readonly<Record<string, string>>): Uint8Array {
  const texts = Object.entries(keys).map(
    ([key, value]) => [Buffer.from(key, 'utf16le'), Buffer.from(value, 'utf16le')] as const,
  );
  const textsOffset = parentLocatorHeader.sizeBytes + texts.length * parentLocatorEntry.sizeBytes;
  const item = new Uint8Array(texts.reduce((end, [key, value]) => end + key.length + value.length, textsOffset));
  parentLocatorHeader.encode({ locatorType: vhdxLocatorType, keyValueCount: texts.length }, item);
  let at = textsOffset;
  for (const [index, [key, value]] of texts.entries()) {
    const entry = {
      keyOffset: at,
      valueOffset: at + key.length,
      keyLengthBytes: key.length,
      valueLengthBytes: value.length,
    };
    parentLocatorEntry.encode(entry, item, parentLocatorHeader.sizeBytes + index * parentLocatorEntry.sizeBytes);
    item.set(key, at);
    item.set(value, at + key.length);
    at += key.length + value.length;
  }
  return item;
}

function textOf(item: Uint8Array, offset: number, lengthBytes: number, at: number): string {
  if (offset + lengthBytes > item.length || lengthBytes === 0 || lengthBytes % 2 !== 0) {
    throw new FormatError(
      'VHDX parent locator entry',
      'text',
      at,
      `${lengthBytes} bytes at ${offset} of ${item.length} cannot be`,
    );
  }
  return Buffer.from(item.buffer, item.byteOffset + offset, lengthBytes).toString('utf16le');
}

/** A GUID in braces. */
function guidOf(text: string | undefined, key: string, offset: number): Guid | undefined {
  if (text === undefined) return undefined;
  const found = /^\{([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}$/i.exec(text)?.[1];
  if (found === undefined)
    throw new FormatError('VHDX parent locator', key, offset, `${JSON.stringify(text)} is not a GUID`);
  return found.toLowerCase();
}
