/** The system's libcrypto and Node's seal and open the same; what was changed opens with neither. */
import { expect, it } from 'vitest';
import { gcms, keyBytes, nonceBytes, tagBytes } from '../../../src/backup/crypto/aes-gcm.ts';
import { seededTest } from '../../seeded.ts';

it('what one seals the other opens, of any length, and nothing that was changed', (context) => {
  const { node, system } = gcms;
  if (node === undefined || system === undefined) {
    context.skip('the system has no libcrypto.so.3');
    return;
  }
  const random = seededTest('aes-gcm');
  for (let round = 0; round < 60; round++) {
    const length = [0, 1, 15, 16, 17, 4096, 65_536][round] ?? random.below(70_000);
    const [key, nonce, plain] = [random.bytes(keyBytes), random.bytes(nonceBytes), random.bytes(length)];
    const bound = random.bytes(random.below(80));
    const made = [node, system].map((gcm) => {
      const [target, tag] = [new Uint8Array(length), new Uint8Array(tagBytes)];
      gcm.seal(key, nonce, bound, plain, target, tag);
      return { target, tag };
    });
    const [ofNode, ofSystem] = made;
    const { target: sealed, tag } = ofNode ?? { target: plain, tag: plain };
    expect(Buffer.compare(sealed, ofSystem?.target ?? plain)).toBe(0);
    expect(tag).toEqual(ofSystem?.tag);
    for (const gcm of [node, system]) {
      const opened = new Uint8Array(length);
      expect(gcm.open(key, nonce, bound, sealed, opened, tag)).toBe(true);
      expect(Buffer.compare(opened, plain)).toBe(0);
      const parts = { key, nonce, bound, sealed, tag };
      const names = (['key', 'nonce', 'bound', 'sealed', 'tag'] as const).filter((name) => parts[name].length > 0);
      for (const name of names) {
        const changed = Uint8Array.from(parts[name]);
        const at = random.below(changed.length);
        changed[at] = (changed[at] ?? 0) ^ (2 ** random.below(8));
        const other = { ...parts, [name]: changed };
        const isOpen = gcm.open(other.key, other.nonce, other.bound, other.sealed, opened, other.tag);
        expect(isOpen, `changed ${name} of ${length} bytes`).toBe(false);
      }
    }
  }
});
