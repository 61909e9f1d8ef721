/** Marvin32, the checksum of registry log entries, with the seed that the registry uses. */

const seedLow = 0x7a4e_55c5;
const seedHigh = 0x82ef_4d88;

/** The hash of `bytes` as the 64-bit number that a log entry stores. */
export function marvin32(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let low = seedLow;
  let high = seedHigh;
  const mix = (word: number): void => {
    low = (low + word) >>> 0;
    high = (high ^ low) >>> 0;
    low = (rotate(low, 20) + high) >>> 0;
    high = (rotate(high, 9) ^ low) >>> 0;
    low = (rotate(low, 27) + high) >>> 0;
    high = rotate(high, 19);
  };
  const whole = bytes.length - (bytes.length % 4);
  for (let at = 0; at < whole; at += 4) mix(view.getUint32(at, true));
  // The rest, closed by a byte of 0x80.
  let last = 0x80;
  for (let at = bytes.length - 1; at >= whole; at--) last = last * 256 + (bytes[at] ?? 0);
  mix(last >>> 0);
  mix(0);
  return BigInt(high) * 0x1_0000_0000n + BigInt(low);
}

function rotate(value: number, bits: number): number {
  return (Math.imul(value, 2 ** bits) | (value >>> (32 - bits))) >>> 0;
}
