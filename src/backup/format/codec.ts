/**
 * Compressing and inflating one block. An inflated block has exactly its chain's block size, or it is refused.
 *
 * zstd goes through the system's libzstd where it is there (it inflates into our buffer with one context per thread: about twice as
 * fast as node:zlib, which allocates every time); node:zlib is the fallback.
 */
import zlib from 'node:zlib';
import koffi from 'koffi';
import lz4 from 'lz4-napi';
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import type { Codec } from './layout.ts';

const zstdLevel = 3;
/** lz4-napi puts the inflated size in front, as a u32le. */
const lz4PrefixBytes = 4;

interface Zstd {
  compress(block: Uint8Array): Uint8Array;
  /** Returns the inflated length, or undefined when the bytes are damaged or do not fit. */
  inflate(stored: Uint8Array, target: Uint8Array): number | undefined;
}

const nodeZstd: Zstd = {
  compress: (block) =>
    zlib.zstdCompressSync(block, { params: { [zlib.constants.ZSTD_c_compressionLevel]: zstdLevel } }),
  inflate(stored, target) {
    try {
      const inflated = zlib.zstdDecompressSync(stored, { maxOutputLength: target.length });
      if (inflated.length === target.length) target.set(inflated);
      return inflated.length;
    } catch {
      return undefined;
    }
  },
};

const zstd: Zstd = systemZstd() ?? nodeZstd;

/** Compresses one block. The result may be longer than the block: the caller then stores it raw. It may be reused by the next call. */
export function compressBlock(codec: Codec, block: Uint8Array): Uint8Array {
  switch (codec) {
    case 'none':
      return block;
    case 'zstd':
      return zstd.compress(block);
    case 'lz4':
      return lz4.compressSync(asBuffer(block));
  }
}

/**
 * Fills `target`, which has the block size, from stored bytes.
 * @throws FormatError naming `what` when they are damaged or inflate to another size
 */
export function inflateBlock(codec: Codec, stored: Uint8Array, target: Uint8Array, what: string): void {
  const length = inflatedLength(codec, stored, target);
  if (length === target.length) return;
  const found = length === undefined ? 'does not inflate to the block size' : `inflates to ${length} bytes`;
  throw new FormatError(what, `${codec} data`, 0, `${found}; ${target.length} belong there`);
}

function inflatedLength(codec: Codec, stored: Uint8Array, target: Uint8Array): number | undefined {
  switch (codec) {
    case 'none':
      if (stored.length === target.length) target.set(stored);
      return stored.length;
    case 'zstd':
      return zstd.inflate(stored, target);
    case 'lz4':
      return inflateLz4(stored, target);
  }
}

function inflateLz4(stored: Uint8Array, target: Uint8Array): number | undefined {
  const buffer = asBuffer(stored);
  if (buffer.length < lz4PrefixBytes || buffer.readUInt32LE(0) !== target.length) return undefined;
  try {
    const inflated = lz4.uncompressSync(buffer);
    if (inflated.length === target.length) target.set(inflated);
    return inflated.length;
  } catch {
    return undefined;
  }
}

function systemZstd(): Zstd | undefined {
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load('libzstd.so.1');
  } catch {
    return undefined;
  }
  const isError = library.func('uint ZSTD_isError(size_t code)') as (code: number) => number;
  const bound = library.func('size_t ZSTD_compressBound(size_t size)') as (size: number) => number;
  const compressContext = (library.func('void *ZSTD_createCCtx()') as () => unknown)();
  const inflateContext = (library.func('void *ZSTD_createDCtx()') as () => unknown)();
  const compress = library.func(
    'size_t ZSTD_compressCCtx(void *context, _Out_ uint8_t *target, size_t capacity, const uint8_t *source, size_t length, int level)',
  ) as (
    context: unknown,
    target: Uint8Array,
    capacity: number,
    source: Uint8Array,
    length: number,
    level: number,
  ) => number;
  const inflate = library.func(
    'size_t ZSTD_decompressDCtx(void *context, _Out_ uint8_t *target, size_t capacity, const uint8_t *source, size_t length)',
  ) as (context: unknown, target: Uint8Array, capacity: number, source: Uint8Array, length: number) => number;
  let scratch = new Uint8Array(0);
  return {
    compress(block) {
      const capacity = bound(block.length);
      if (scratch.length < capacity) scratch = new Uint8Array(capacity);
      const length = compress(compressContext, scratch, scratch.length, block, block.length, zstdLevel);
      if (isError(length) !== 0) throw new UnsupportedError('libzstd could not compress a block');
      return scratch.subarray(0, length);
    },
    inflate(stored, target) {
      const length = inflate(inflateContext, target, target.length, stored, stored.length);
      return isError(length) === 0 ? length : undefined;
    },
  };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
