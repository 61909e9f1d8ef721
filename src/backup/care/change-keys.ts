/**
 * Changes the key slots of a chain: of all its images in the folder, and of nothing else in them.
 *
 * Crash order, for each image:
 * 1. the key block of the lower generation, or the damaged one; fdatasync. The other still says what it said
 * 2. the other; fdatasync
 * Whatever is interrupted, each image has a sound key block of before or after the change: old keys open the one, new keys the other, and
 * keys of slots that were left alone open both. A rerun goes on from the highest generation that any image has.
 *
 * A slot that is removed is gone from these files. Whoever kept a copy of them, or the chain key, can still read what they could read before.
 */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { flushFile } from '../../base/durable.ts';
import { ForbiddenError, UnavailableError, UsageError } from '../../base/errors.ts';
import { keepingTimes } from '../../base/file-times.ts';
import { readFully, writeFully } from '../../base/full-io.ts';
import { closing } from '../../base/ownership.ts';
import { noKeyError } from '../crypto/key-ring.ts';
import { KeySlots, type Credential, type SlotDescription } from '../crypto/key-slots.ts';
import type { ChainKey } from '../crypto/seal.ts';
import { keyBlockBytes, keyBlockCopies, superblockBytes } from '../format/layout.ts';
import { lockFolder } from '../read/chain-lock.ts';
import { listImages } from '../read/folder-images.ts';
import { Image } from '../read/image.ts';

export interface ChangedKeys {
  readonly slots: readonly SlotDescription[];
  /** Whose slots were written. */
  readonly images: number;
  /** The slot that the new key opens. */
  readonly slot?: number;
}

/** The slots of a chain as its most lately changed image has them. */
export interface ChainSlots {
  readonly slots: readonly SlotDescription[];
  readonly images: number;
  /** Images whose slots are older: a change was interrupted, or they were put back from elsewhere. */
  readonly behind: readonly string[];
}

/** @throws UsageError when the image is not encrypted; needs no key */
export function listKeys(imagePath: string): ChainSlots {
  const { current, images } = slotsOfChain(imagePath);
  const behind = images.filter(({ slots }) => slots.generation < current.generation).map((image) => image.path);
  return { slots: current.describe(), images: images.length, behind };
}

/**
 * Adds a key that opens the chain. Where it opens it already, an interrupted change is brought to its end.
 * @param held keys that open the chain now, one of which is enough
 * @throws UsageError, ForbiddenError, UnavailableError
 */
export function addKey(imagePath: string, held: readonly Credential[], added: Credential, label = ''): ChangedKeys {
  return change(
    imagePath,
    held,
    (current, key) => {
      if (current.unlock(added, imagePath) !== undefined) return current.atGeneration(current.generation + 1);
      return current.withAdded(key, added, label, imagePath);
    },
    added,
  );
}

/** Removes a slot. @throws UsageError when it is the last, or none of the keys that are held opens another */
export function removeKey(imagePath: string, held: readonly Credential[], slot: number): ChangedKeys {
  return change(imagePath, held, (current) => {
    const next = current.withRemoved(slot, imagePath);
    if (!held.some((credential) => next.unlock(credential, imagePath) !== undefined)) {
      throw new UsageError(
        `${imagePath}: the key that was given opens slot ${slot} alone; give one that opens what is left, so that nobody is locked out`,
      );
    }
    return next;
  });
}

/** Puts a new key into a slot, in place of the one that it had. @throws as addKey */
export function rotateKey(
  imagePath: string,
  held: readonly Credential[],
  slot: number,
  renewed: Credential,
  label = '',
): ChangedKeys {
  return change(imagePath, held, (current, key) => current.withReplaced(slot, key, renewed, label, imagePath), renewed);
}

function change(
  imagePath: string,
  held: readonly Credential[],
  plan: (current: KeySlots, key: ChainKey) => KeySlots,
  made?: Credential,
): ChangedKeys {
  const lock = lockFolder(path.dirname(imagePath));
  try {
    const { current, images } = slotsOfChain(imagePath);
    const key = unlock(imagePath, images, held);
    // An image that another key signed is none of this chain, whatever it says.
    for (const { path: file } of images) {
      using image = closing(Image.open(file));
      image.value.checkSignature(key);
    }
    const next = plan(current, key);
    for (const image of images) writeSlots(image.path, next);
    const slot = made === undefined ? undefined : next.unlock(made, imagePath)?.slot;
    return { slots: next.describe(), images: images.length, ...(slot === undefined ? {} : { slot }) };
  } finally {
    lock.close();
  }
}

interface SlotsOfImage {
  readonly path: string;
  readonly slots: KeySlots;
}

/** Of all images of the chain that lie in the image's folder, on whichever branch. */
function slotsOfChain(imagePath: string): { current: KeySlots; images: SlotsOfImage[] } {
  using asked = closing(Image.open(imagePath));
  let current = asked.value.readKeySlots();
  const found = listImages(path.dirname(imagePath), current.chainId);
  const [damaged] = found.damaged;
  if (damaged !== undefined)
    throw new UsageError(
      `${damaged.path}: may be of this chain and cannot be opened (${damaged.reason}); put it right or away first`,
    );
  const images = found.images.map(({ path: file }) => {
    using image = closing(Image.open(file));
    const slots = image.value.readKeySlots();
    if (slots.generation > current.generation) current = slots;
    return { path: file, slots };
  });
  return { current, images };
}

/** The newest slots count; after an interrupted change a key may open those before it alone. @throws ForbiddenError */
function unlock(imagePath: string, images: readonly SlotsOfImage[], held: readonly Credential[]): ChainKey {
  const byGeneration = new Map(images.map(({ slots }) => [slots.generation, slots]));
  for (const slots of [...byGeneration.values()].sort((a, b) => b.generation - a.generation)) {
    for (const credential of held) {
      const unlocked = slots.unlock(credential, imagePath);
      if (unlocked !== undefined) return unlocked.key;
    }
  }
  throw noKeyError(imagePath, held.length === 0) satisfies ForbiddenError;
}

function writeSlots(file: string, slots: KeySlots): void {
  let fd: number;
  try {
    fd = fs.openSync(file, 'r+');
  } catch (error) {
    throw new UnavailableError(`${file}: its key slots cannot be written`, { cause: error });
  }
  try {
    const block = slots.encode();
    keepingTimes(fd, file, () => {
      for (const copy of copiesOldestFirst(fd, file, slots)) {
        writeFully(fd, block, superblockBytes + copy * keyBlockBytes, file);
        flushFile(fd, file);
      }
    });
  } finally {
    fs.closeSync(fd);
  }
}

/** The copy that may be lost comes first: damaged, or of the lower generation. */
function copiesOldestFirst(fd: number, file: string, { chainId }: KeySlots): number[] {
  const generationOf = (copy: number): number => {
    const block = new Uint8Array(keyBlockBytes);
    readFully(fd, block, superblockBytes + copy * keyBlockBytes, file);
    try {
      return KeySlots.parse(block, chainId, file).generation;
    } catch {
      return -1;
    }
  };
  const copies = Array.from({ length: keyBlockCopies }, (_, copy) => ({ copy, generation: generationOf(copy) }));
  return copies.sort((a, b) => a.generation - b.generation).map(({ copy }) => copy);
}
