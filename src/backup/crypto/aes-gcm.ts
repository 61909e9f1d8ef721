/**
 * AES-256-GCM of one unit at a time, with tags of 16 bytes.
 *
 * It goes through the system's libcrypto where it is there: one context for each thread and memory that is reused make it two to four times as
 * fast as node:crypto, which makes objects and memory for every unit; node:crypto is the fallback.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto';
import koffi from 'koffi';
import { assert } from '../../base/errors.ts';

export const keyBytes = 32;
export const nonceBytes = 12;
export const tagBytes = 16;
const cipherName = 'aes-256-gcm';

interface Gcm {
  /** Fills target, as long as `plain`, and tag. @param key is not changed from then on @param bound additional data */
  seal(
    key: Uint8Array,
    nonce: Uint8Array,
    bound: Uint8Array,
    plain: Uint8Array,
    target: Uint8Array,
    tag: Uint8Array,
  ): void;
  /** Fills target, as long as `sealed`. @returns whether the tag holds: else the target is worthless */
  open(
    key: Uint8Array,
    nonce: Uint8Array,
    bound: Uint8Array,
    sealed: Uint8Array,
    target: Uint8Array,
    tag: Uint8Array,
  ): boolean;
  /**
   * Decrypts a part of what was sealed, and checks nothing: for whoever knows by other means that it is what was sealed.
   * @param from where in it the part begins, a multiple of 16 bytes
   * @param target as long as the part; may be the part
   */
  decryptPart(key: Uint8Array, nonce: Uint8Array, from: number, part: Uint8Array, target: Uint8Array): void;
}

/** GCM encrypts as CTR does, from this counter on (NIST SP 800-38D, 7.1: the first is kept for the tag). */
const firstCounter = 2;
const cipherBlockBytes = 16;
const counterBlock = new Uint8Array(cipherBlockBytes);
const counterView = new DataView(counterBlock.buffer);

/** What CTR begins with for a part of what GCM has sealed, until the next call. */
function counterAt(nonce: Uint8Array, from: number): Uint8Array {
  counterBlock.set(nonce);
  counterView.setUint32(nonceBytes, firstCounter + from / cipherBlockBytes);
  return counterBlock;
}

/** Making one of the key's bytes takes as long as a page. */
const nodeKeys = new WeakMap<Uint8Array, KeyObject>();

function nodeKey(key: Uint8Array): KeyObject {
  let made = nodeKeys.get(key);
  if (made === undefined) nodeKeys.set(key, (made = createSecretKey(key)));
  return made;
}

const nodeGcm: Gcm = {
  seal(key, nonce, bound, plain, target, tag) {
    const cipher = createCipheriv(cipherName, nodeKey(key), nonce, { authTagLength: tagBytes });
    cipher.setAAD(bound);
    target.set(cipher.update(plain));
    cipher.final();
    tag.set(cipher.getAuthTag());
  },
  open(key, nonce, bound, sealed, target, tag) {
    const decipher = createDecipheriv(cipherName, nodeKey(key), nonce, { authTagLength: tagBytes });
    decipher.setAAD(bound);
    decipher.setAuthTag(tag);
    target.set(decipher.update(sealed));
    try {
      decipher.final();
      return true;
    } catch {
      return false;
    }
  },
  decryptPart(key, nonce, from, part, target) {
    target.set(createDecipheriv('aes-256-ctr', nodeKey(key), counterAt(nonce, from)).update(part));
  },
};

/** Of EVP_CIPHER_CTX_ctrl (openssl/evp.h). */
const control = { getTag: 0x10, setTag: 0x11 } as const;

function systemGcm(): Gcm | undefined {
  let library: ReturnType<typeof koffi.load>;
  try {
    // Node brings another libcrypto, whose functions have the same names.
    library = koffi.load('libcrypto.so.3', { deep: true });
  } catch {
    return undefined;
  }
  const fetch = library.func(
    'void *EVP_CIPHER_fetch(void *library, const char *algorithm, const char *properties)',
  ) as (...args: unknown[]) => unknown;
  const newContext = library.func('void *EVP_CIPHER_CTX_new()') as () => unknown;
  const init = library.func(
    'int EVP_CipherInit_ex(void *context, void *cipher, void *engine, const uint8_t *key, const uint8_t *nonce, int sealing)',
  ) as (...args: unknown[]) => number;
  const update = library.func(
    'int EVP_CipherUpdate(void *context, _Out_ uint8_t *target, _Out_ int *length, const uint8_t *source, int sourceLength)',
  ) as (...args: unknown[]) => number;
  const final = library.func('int EVP_CipherFinal_ex(void *context, _Out_ uint8_t *target, _Out_ int *length)') as (
    ...args: unknown[]
  ) => number;
  const putTag = library.func('EVP_CIPHER_CTX_ctrl', 'int', ['void *', 'int', 'int', 'const uint8_t *']) as (
    ...args: unknown[]
  ) => number;
  const takeTag = library.func('EVP_CIPHER_CTX_ctrl', 'int', ['void *', 'int', 'int', '_Out_ uint8_t *']) as (
    ...args: unknown[]
  ) => number;

  const contextOf = (cipherName: string): unknown => {
    const cipher = fetch(null, cipherName, null);
    const made = newContext();
    return cipher !== null && made !== null && init(made, cipher, null, null, null, 1) === 1 ? made : undefined;
  };
  const context = contextOf('AES-256-GCM');
  const counting = contextOf('AES-256-CTR');
  if (context === undefined || counting === undefined) return undefined;
  const length = new Int32Array(1);
  const nothing = new Uint8Array(tagBytes);
  /** @returns whether all went well */
  const transform = (
    sealing: 0 | 1,
    key: Uint8Array,
    nonce: Uint8Array,
    bound: Uint8Array,
    source: Uint8Array,
    target: Uint8Array,
  ): boolean =>
    init(context, null, null, key, nonce, sealing) === 1 &&
    (bound.length === 0 || update(context, null, length, bound, bound.length) === 1) &&
    (source.length === 0 || update(context, target, length, source, source.length) === 1);
  return {
    seal(key, nonce, bound, plain, target, tag) {
      const sealed = transform(1, key, nonce, bound, plain, target) && final(context, nothing, length) === 1;
      assert(sealed && takeTag(context, control.getTag, tagBytes, tag) === 1, 'libcrypto could not seal a unit');
    },
    open(key, nonce, bound, sealed, target, tag) {
      assert(transform(0, key, nonce, bound, sealed, target), 'libcrypto could not open a unit');
      return putTag(context, control.setTag, tagBytes, tag) === 1 && final(context, nothing, length) === 1;
    },
    decryptPart(key, nonce, from, part, target) {
      const done =
        init(counting, null, null, key, counterAt(nonce, from), 0) === 1 &&
        update(counting, target, length, part, part.length) === 1;
      assert(done, 'libcrypto could not decrypt a part');
    },
  };
}

/** By name, for tests: all of them seal and open the same. */
export const gcms: Readonly<Record<'node' | 'system', Gcm | undefined>> = { node: nodeGcm, system: systemGcm() };

export const gcm: Gcm = gcms.system ?? nodeGcm;
