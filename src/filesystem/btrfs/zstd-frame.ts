/** How long a zstd frame is (RFC 8878, 3.1.1): in an extent it is followed by zeros, which a decoder takes for the next frame. */
import { FormatError } from '../../base/errors.ts';

const magic = 0xfd2fb528;
const contentSizeBytes = [0, 2, 4, 8];
const dictionaryBytes = [0, 1, 2, 4];
const runBlock = 1;

/** @throws FormatError when the bytes end before the frame does */
export function zstdFrameBytes(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 6 || view.getUint32(0, true) !== magic)
    throw new FormatError('zstd frame', 'magic', 0, 'is wrong');
  const descriptor = view.getUint8(4);
  const single = Math.floor(descriptor / 32) % 2 === 1;
  const sizeFlag = Math.floor(descriptor / 64);
  const sizeBytes = sizeFlag === 0 && single ? 1 : (contentSizeBytes[sizeFlag] ?? 0);
  let at = 5 + (single ? 0 : 1) + (dictionaryBytes[descriptor % 4] ?? 0) + sizeBytes;
  for (let last = false; !last;) {
    if (at + 3 > bytes.length) throw new FormatError('zstd frame', 'block', at, 'is cut off');
    const header = view.getUint16(at, true) + view.getUint8(at + 2) * 65536;
    last = header % 2 === 1;
    const type = Math.floor(header / 2) % 4;
    const size = Math.floor(header / 8);
    if (type > 2) throw new FormatError('zstd frame', 'block type', at, `${type}`);
    at += 3 + (type === runBlock ? 1 : size);
  }
  if (Math.floor(descriptor / 4) % 2 === 1) at += 4;
  if (at > bytes.length) throw new FormatError('zstd frame', 'end', at, 'is behind the data');
  return at;
}
