/** The keys of the encrypted chains in a folder, opened once, so that a wrong key is known at once and the right one is at hand for all. */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { isUnfinishedName } from '../../base/durable.ts';
import { UsageError, VeneerError } from '../../base/errors.ts';
import { closing } from '../../base/ownership.ts';
import type { Guid } from '../../bytes/guid.ts';
import { KeyRing, type ThreadKeys } from '../crypto/key-ring.ts';
import { maxScryptWork } from '../crypto/key-slots.ts';
import { isImageFile } from './folder-images.ts';
import { Image } from './image.ts';

/**
 * What trying passphrases on all chains of a folder may cost before it is served: about half a minute. Whoever can write to the folder can
 * put in any number of chains. Those that are left are tried when one of their images is read.
 */
const maxFolderWork = 4 * maxScryptWork;

/**
 * The keys with the chain keys of the folder's encrypted images that they open.
 * @throws UsageError when there are encrypted images, and keys, and none of these opens one of those
 */
export function unlockFolder(folder: string, keys: ThreadKeys): ThreadKeys {
  const ring = new KeyRing(keys);
  if (ring.isEmpty) return keys;
  const chains = new Map<Guid, boolean>();
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isFile() || isUnfinishedName(entry.name)) continue;
    const unlocked = tryUnlock(path.join(folder, entry.name), ring, chains);
    if (unlocked !== undefined) chains.set(unlocked.chainId, unlocked.isOpen);
  }
  const isAllTried = ring.workDone < maxFolderWork - maxScryptWork;
  if (isAllTried && chains.size > 0 && ![...chains.values()].some((isOpen) => isOpen)) {
    throw new UsageError(`${folder}: the key that was given opens none of its encrypted images; give theirs, or none`);
  }
  return ring.toThread();
}

/** Undefined for what is no encrypted image, is damaged, or is of a chain that was tried. */
function tryUnlock(
  file: string,
  ring: KeyRing,
  chains: ReadonlyMap<Guid, boolean>,
): { chainId: Guid; isOpen: boolean } | undefined {
  try {
    if (!isImageFile(file)) return undefined;
    using image = closing(Image.open(file));
    const { sealed, chainId } = image.value.description;
    if (!sealed || chains.get(chainId) === true) return undefined;
    return { chainId, isOpen: ring.find(image.value, maxFolderWork) !== undefined };
  } catch (error) {
    // A damaged image is met when it is read; it must not keep the others from being mounted.
    if (error instanceof VeneerError || (error instanceof Error && 'syscall' in error)) return undefined;
    throw error;
  }
}
