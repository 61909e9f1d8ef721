/**
 * The keys that a command or a mount was given: passphrases and key files, and the chain keys that they have opened. A chain's key is looked
 * for when it is first needed, and once.
 */
import { ForbiddenError } from '../../base/errors.ts';
import type { Guid } from '../../bytes/guid.ts';
import type { Credential, KeySlots } from './key-slots.ts';
import { ChainKey, type ThreadKey } from './seal.ts';

/** An encrypted image, as far as its key is looked for. */
interface LockedImage {
  readonly path: string;
  readonly description: { readonly chainId: Guid };
  /** @throws FormatError, UnavailableError */
  readKeySlots(): KeySlots;
}

/** A key ring on its way to another thread of this process. Never to a file, an argument, a log or a message. */
export interface ThreadKeys {
  readonly credentials: readonly Credential[];
  readonly chains: readonly ThreadKey[];
}

export const noKeys: ThreadKeys = { credentials: [], chains: [] };

export class KeyRing {
  readonly #credentials: readonly Credential[];
  readonly #chains = new Map<Guid, ChainKey>();
  /** Key slots that none of the credentials opens: an attempt may take seconds, and is not made again. */
  readonly #refused = new Set<string>();
  #workDone = 0;

  constructor({ credentials, chains }: ThreadKeys = noKeys) {
    // Trying a key file costs nothing, trying a passphrase seconds.
    this.#credentials = credentials.toSorted((a, b) => Number(b.kind === 'key file') - Number(a.kind === 'key file'));
    for (const key of chains) this.add(new ChainKey(key));
  }

  /** What all that was tried so far has cost, as KeySlots.workOf counts. */
  get workDone(): number {
    return this.#workDone;
  }

  get isEmpty(): boolean {
    return this.#credentials.length === 0 && this.#chains.size === 0;
  }

  add(key: ChainKey): void {
    this.#chains.set(key.chainId, key);
  }

  toThread(): ThreadKeys {
    return { credentials: this.#credentials, chains: [...this.#chains.values()].map((key) => key.toThread()) };
  }

  /** A chain's key that is at hand already, with no image of it. */
  ofChain(chainId: Guid): ChainKey | undefined {
    return this.#chains.get(chainId);
  }

  /**
   * The key of an encrypted image's chain; undefined when nothing here opens it.
   * @param maxWork what trying may cost at most (KeySlots.workOf): where it costs more, only what costs nothing is tried
   */
  find(image: LockedImage, maxWork = Number.POSITIVE_INFINITY): ChainKey | undefined {
    const known = this.#chains.get(image.description.chainId);
    if (known !== undefined || this.#credentials.length === 0) return known;
    const slots = image.readKeySlots();
    const attempt = `${slots.chainId} ${slots.generation}`;
    if (this.#refused.has(attempt)) return undefined;
    for (const credential of this.#credentials) {
      const work = slots.workOf(credential, image.path);
      if (this.#workDone + work > maxWork) return undefined;
      this.#workDone += work;
      const unlocked = slots.unlock(credential, image.path);
      if (unlocked === undefined) continue;
      this.add(unlocked.key);
      return unlocked.key;
    }
    this.#refused.add(attempt);
    return undefined;
  }

  /** @throws ForbiddenError in one line, that says what to do */
  require(image: LockedImage): ChainKey {
    const key = this.find(image);
    if (key === undefined) throw noKeyError(image.path, this.isEmpty);
    return key;
  }
}

/** Data of an encrypted image was asked for, and there is no key for it. */
export function noKeyError(imagePath: string, noneGiven: boolean): ForbiddenError {
  return new ForbiddenError(
    noneGiven
      ? `${imagePath}: is encrypted; give its key with --key-file, --passphrase-file or --ask-passphrase`
      : `${imagePath}: is encrypted, and the key that was given does not open it; veneer key list shows what does`,
  );
}
