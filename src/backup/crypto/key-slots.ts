/**
 * Key slots: the chain key, wrapped once for each passphrase or key file that opens the chain. Every encrypted image of a chain carries them,
 * in two key blocks behind its superblock; they are the only bytes of a finished image that are ever written again.
 *
 *   0     magic, generation, chain GUID
 *   256   8 slots of 256 B: kind, scrypt costs, salt, nonce, tag, wrapped key, when, label
 *   4092  CRC-32C
 *
 * A slot's key comes from a passphrase by scrypt, or from the bytes of a key file by HKDF-SHA-256, and wraps the chain key with AES-256-GCM
 * bound to the chain's GUID. Of the two blocks the sound one of the higher generation counts.
 */
import { hkdfSync, randomBytes, scryptSync } from 'node:crypto';
import { describeError, FormatError, UnsupportedError, UsageError } from '../../base/errors.ts';
import { bytesOfName } from '../../base/names.ts';
import { KiB, MiB } from '../../base/units.ts';
import { checkCrc32c, sealCrc32c } from '../../bytes/checksum.ts';
import { guidToBytes, type Guid } from '../../bytes/guid.ts';
import { ascii, bytes, guid, layout, reserved, text, u32le, u64le, u8, type Decoded } from '../../bytes/layout.ts';
import { dataOffset, keyBlockBytes, keyBlockCopies, narrow, superblockBytes } from '../format/layout.ts';
import { ChainKey, chainKeyBytes, Sealer, sealOverheadBytes } from './seal.ts';

export const maxKeySlots = 8;
const firstSlotOffset = 256;
const slotBytes = 256;
export const maxLabelBytes = 64;
/** A key file shorter than this is not random enough, or not a key file. */
export const minKeyFileBytes = 32;
export const maxSecretBytes = 64 * KiB;

const scryptCosts = { logN: 17, r: 8, p: 1 };
/** Work of scrypt is N * r * p: about half a second for each slot that is made here. */
const ownScryptWork = scryptWorkOf({ scryptLogN: scryptCosts.logN, scryptR: scryptCosts.r, scryptP: scryptCosts.p });
/**
 * What trying a passphrase on a slot may cost, and on all slots of an image: whoever can write an image could else ask for any amount. Memory
 * is 128 * N * r bytes, and so bounded with it: 512 MiB.
 */
export const maxSlotWork = 4 * ownScryptWork;
export const maxScryptWork = 16 * ownScryptWork;

const slotKinds = ['empty', 'passphrase', 'key file'] as const;
type SlotKind = (typeof slotKinds)[number];

/** A passphrase, or the bytes of a key file. */
export interface Credential {
  readonly kind: Exclude<SlotKind, 'empty'>;
  readonly secret: Uint8Array;
}

const keyBlock = layout('key block', keyBlockBytes, {
  magic: ascii(0, 'VENEERKB'),
  generation: u64le(8),
  chainId: guid(16),
  reserved1: reserved(32, firstSlotOffset - 32),
  slots: bytes(firstSlotOffset, maxKeySlots * slotBytes),
  reserved2: reserved(firstSlotOffset + maxKeySlots * slotBytes, 4092 - firstSlotOffset - maxKeySlots * slotBytes),
  crc32c: u32le(4092),
});

const slotLayout = layout('key slot', slotBytes, {
  kind: u8(0), //               index into slotKinds
  scryptLogN: u8(1), //         of a passphrase: N = 2^this
  reserved1: reserved(2, 2),
  scryptR: u32le(4),
  scryptP: u32le(8),
  reserved2: reserved(12, 4),
  salt: bytes(16, 32),
  wrapped: bytes(48, sealOverheadBytes + chainKeyBytes), // nonce, tag, chain key
  reserved3: reserved(108, 4),
  createdAtMs: u64le(112),
  label: text(120, maxLabelBytes + 1, 'utf8'),
  reserved4: reserved(185, 71),
});
type Slot = Decoded<typeof slotLayout>;

/** What may be told of a slot. */
export interface SlotDescription {
  readonly slot: number;
  readonly kind: Exclude<SlotKind, 'empty'>;
  readonly createdAt: Date;
  readonly label: string;
}

/** The slots of an image at one generation. Immutable. */
export class KeySlots {
  readonly chainId: Guid;
  readonly generation: number;
  readonly #slots: readonly (Slot | undefined)[];

  private constructor(chainId: Guid, generation: number, slots: readonly (Slot | undefined)[]) {
    this.chainId = chainId;
    this.generation = generation;
    this.#slots = slots;
  }

  /** The slots of a new chain: one. */
  static first(key: ChainKey, credential: Credential, label = ''): KeySlots {
    return new KeySlots(key.chainId, 1, [wrap(key, credential, label)]);
  }

  /**
   * Reads both blocks and takes the newer sound one.
   * @param read of the image's file
   * @throws FormatError, IntegrityError when neither is sound, UnavailableError
   */
  static read(read: (target: Uint8Array, offset: number) => void, chainId: Guid, name: string): KeySlots {
    const { sound, faults } = readCopies(read, chainId, name);
    const newest = sound.sort((a, b) => b.generation - a.generation)[0];
    if (newest !== undefined) return newest;
    throw new FormatError(name, 'key blocks', superblockBytes, `neither is sound: ${faults.join('; ')}`);
  }

  /** What is wrong with each of the two blocks, and that they differ; nothing when all is well. */
  static faults(read: (target: Uint8Array, offset: number) => void, chainId: Guid, name: string): string[] {
    const { sound, faults } = readCopies(read, chainId, name);
    const [first, second] = sound;
    if (first === undefined || second === undefined || Buffer.from(first.encode()).equals(second.encode()))
      return faults;
    return [`${name}: its key blocks differ: a change of key slots was interrupted; run it again`];
  }

  /** @throws FormatError, IntegrityError, UnsupportedError */
  static parse(block: Uint8Array, chainId: Guid, name: string): KeySlots {
    checkCrc32c(block, keyBlock.offsetOf('crc32c'), name);
    const found = keyBlock.parse(block);
    if (found.chainId !== chainId) throw new FormatError(name, 'chain', 16, 'belongs to another chain');
    const slots = Array.from({ length: maxKeySlots }, (_, index) => {
      const slot = slotLayout.parse(found.slots, index * slotBytes);
      if (slotKinds[slot.kind] === undefined)
        throw new UnsupportedError(`${name}: slot ${index} is of a kind (${slot.kind}) that this Veneer does not know`);
      return slot.kind === 0 ? undefined : slot;
    });
    const generation = narrow(name, 'generation', 8, found.generation, Number.MAX_SAFE_INTEGER - 1);
    return new KeySlots(found.chainId, generation, slots);
  }

  /** As they stand in a key block. */
  encode(): Uint8Array {
    const slots = new Uint8Array(maxKeySlots * slotBytes);
    for (const [index, slot] of this.#slots.entries()) {
      if (slot !== undefined) slotLayout.encode(slot, slots, index * slotBytes);
    }
    const block = keyBlock.encode({ generation: BigInt(this.generation), chainId: this.chainId, slots, crc32c: 0 });
    return sealCrc32c(block, keyBlock.offsetOf('crc32c'));
  }

  /** Both blocks of a new image. */
  encodeBoth(): Uint8Array {
    const both = new Uint8Array(dataOffset(true) - superblockBytes);
    for (let copy = 0; copy < keyBlockCopies; copy++) both.set(this.encode(), copy * keyBlockBytes);
    return both;
  }

  describe(): SlotDescription[] {
    return this.#slots.flatMap((slot, index) => {
      const kind = slot === undefined ? undefined : slotKinds[slot.kind];
      if (slot === undefined || kind === undefined || kind === 'empty') return [];
      return [{ slot: index, kind, createdAt: new Date(Number(slot.createdAtMs)), label: slot.label }];
    });
  }

  /**
   * What trying a credential costs: nothing for a key file; for a passphrase about half a second for each slot.
   * @throws FormatError where a slot or all together would cost more than they may: before anything is tried
   */
  workOf(credential: Credential, name: string): number {
    if (credential.kind === 'key file') return 0;
    let work = 0;
    for (const slot of this.#slots) {
      if (slot === undefined || slotKinds[slot.kind] !== credential.kind) continue;
      requireScryptCosts(slot, name);
      work += scryptWorkOf(slot);
    }
    if (work > maxScryptWork) throw tooMuchWork(name, `all slots together take ${work}`, maxScryptWork);
    return work;
  }

  /** The chain key, and the slot that the credential opens; undefined when it opens none. @throws as `workOf` does */
  unlock(credential: Credential, name: string): { readonly key: ChainKey; readonly slot: number } | undefined {
    this.workOf(credential, name);
    for (const [index, slot] of this.#slots.entries()) {
      if (slot === undefined || slotKinds[slot.kind] !== credential.kind) continue;
      const bytes = wrapper(slot, credential).open(slot.wrapped, boundTo(this.chainId));
      if (bytes !== undefined) return { key: new ChainKey({ chainId: this.chainId, bytes }), slot: index };
    }
    return undefined;
  }

  /** @throws UsageError when all slots are taken */
  withAdded(key: ChainKey, credential: Credential, label: string, name: string): KeySlots {
    const free = Array.from({ length: maxKeySlots }, (_, index) => index).find(
      (index) => this.#slots[index] === undefined,
    );
    if (free === undefined) throw new UsageError(`${name}: all ${maxKeySlots} key slots are taken; remove one first`);
    return this.#with(free, wrap(key, credential, label));
  }

  /** @throws UsageError when there is no such slot */
  withReplaced(slot: number, key: ChainKey, credential: Credential, label: string, name: string): KeySlots {
    this.#require(slot, name);
    return this.#with(slot, wrap(key, credential, label));
  }

  /** @throws UsageError when there is no such slot, or it is the last one */
  withRemoved(slot: number, name: string): KeySlots {
    this.#require(slot, name);
    if (this.describe().length === 1)
      throw new UsageError(
        `${name}: slot ${slot} is the last one, and the only way to the data; add another key first`,
      );
    return this.#with(slot, undefined);
  }

  /** The same slots, to be written over those of an earlier generation. */
  atGeneration(generation: number): KeySlots {
    return new KeySlots(this.chainId, generation, this.#slots);
  }

  #require(slot: number, name: string): void {
    if (this.#slots[slot] === undefined)
      throw new UsageError(`${name}: has no key slot ${slot}; veneer key list shows those it has`);
  }

  #with(index: number, slot: Slot | undefined): KeySlots {
    const slots = Array.from({ length: maxKeySlots }, (_, at) => (at === index ? slot : this.#slots[at]));
    return new KeySlots(this.chainId, this.generation + 1, slots);
  }
}

function readCopies(
  read: (target: Uint8Array, offset: number) => void,
  chainId: Guid,
  name: string,
): { readonly sound: KeySlots[]; readonly faults: string[] } {
  const sound: KeySlots[] = [];
  const faults: string[] = [];
  for (let copy = 0; copy < keyBlockCopies; copy++) {
    const block = new Uint8Array(keyBlockBytes);
    read(block, superblockBytes + copy * keyBlockBytes);
    try {
      sound.push(KeySlots.parse(block, chainId, `${name}: key block ${copy}`));
    } catch (error) {
      faults.push(describeError(error));
    }
  }
  return { sound, faults };
}

function wrap(key: ChainKey, credential: Credential, label: string): Slot {
  if (bytesOfName(label).length > maxLabelBytes)
    throw new UsageError(`the label has more than ${maxLabelBytes} bytes; choose a shorter one`);
  const costs = credential.kind === 'passphrase' ? scryptCosts : { logN: 0, r: 0, p: 0 };
  const slot: Slot = {
    kind: slotKinds.indexOf(credential.kind),
    scryptLogN: costs.logN,
    scryptR: costs.r,
    scryptP: costs.p,
    salt: randomBytes(32),
    wrapped: new Uint8Array(sealOverheadBytes + chainKeyBytes),
    createdAtMs: BigInt(Date.now()),
    label,
  };
  wrapper(slot, credential).seal(key.toThread().bytes, boundTo(key.chainId), slot.wrapped);
  return slot;
}

function scryptWorkOf({ scryptLogN, scryptR, scryptP }: Pick<Slot, 'scryptLogN' | 'scryptR' | 'scryptP'>): number {
  return 2 ** scryptLogN * scryptR * scryptP;
}

function requireScryptCosts(slot: Slot, name: string): void {
  if (slot.scryptLogN < 1 || slot.scryptR < 1 || slot.scryptP < 1)
    throw new FormatError(name, 'scrypt costs', 1, 'cannot be those of a key slot');
  const work = scryptWorkOf(slot);
  if (work > maxSlotWork) throw tooMuchWork(name, `a slot takes ${work}`, maxSlotWork);
}

function tooMuchWork(name: string, what: string, limit: number): FormatError {
  return new FormatError(name, 'scrypt costs', 1, `${what} steps to try a passphrase, more than the limit of ${limit}`);
}

function wrapper(slot: Slot, { kind, secret }: Credential): Sealer {
  if (kind === 'key file')
    return new Sealer(new Uint8Array(hkdfSync('sha256', secret, slot.salt, 'veneer key file', chainKeyBytes)));
  const N = 2 ** slot.scryptLogN;
  const memoryBytes = 128 * N * slot.scryptR;
  const options = { N, r: slot.scryptR, p: slot.scryptP, maxmem: memoryBytes + 2 * MiB };
  return new Sealer(scryptSync(secret, slot.salt, chainKeyBytes, options));
}

function boundTo(chainId: Guid): Uint8Array {
  return Buffer.concat([Buffer.from('veneer chain key\0'), guidToBytes(chainId)]);
}
