/** A synthesized file for tests: every 512 bytes of it differ, any thread or process makes the same, and it cannot be written. */
import { KiB } from '../../src/base/units.ts';
import type { FillBase } from '../../src/fill/filler.ts';

export const sectorBytes = 512;
const pieceBytes = 64 * KiB;

function isZeroPiece(piece: number): boolean {
  return piece % 4 === 2;
}

/** What the base has in a sector: its number and a mark of the base, over and over. */
export function baseSector(sector: number): Buffer {
  return sectorOf(sector, 0xba5e, 0);
}

/** A sector that says where it belongs, who wrote it and with which write; all its 16-byte pieces are equal. */
export function sectorOf(sector: number, writer: number, write: number): Buffer {
  const piece = Buffer.alloc(16);
  piece.writeUInt32LE(sector, 0);
  piece.writeUInt32LE(writer, 4);
  piece.writeUInt32LE(write, 8);
  piece.writeUInt32LE(0x51f0 ^ sector ^ writer ^ write, 12);
  return Buffer.alloc(sectorBytes, piece);
}

const pieces = new Map<number, Buffer>();
const zeroPiece = Buffer.alloc(pieceBytes);

/** Kept: there are few, and making them takes long. */
function basePiece(piece: number): Buffer {
  const first = (piece * pieceBytes) / sectorBytes;
  const made =
    pieces.get(piece) ??
    Buffer.concat(Array.from({ length: pieceBytes / sectorBytes }, (_, index) => baseSector(first + index)));
  pieces.set(piece, made);
  return made;
}

/** @param hasZeros whether every fourth piece of 64 KiB is zero instead, and known to be */
export function patternBase(sizeBytes: number, hasZeros = false): FillBase {
  return {
    sizeBytes,
    read(target, offset) {
      if (offset + target.length > sizeBytes) throw new Error(`the base was read behind its end, at ${offset}`);
      for (let at = offset; at < offset + target.length;) {
        const piece = Math.floor(at / pieceBytes);
        const to = Math.min((piece + 1) * pieceBytes, offset + target.length);
        const bytes = hasZeros && isZeroPiece(piece) ? zeroPiece : basePiece(piece);
        target.set(bytes.subarray(at % pieceBytes, (at % pieceBytes) + to - at), at - offset);
        at = to;
      }
    },
    *extents(offset, length) {
      for (let at = offset; at < offset + length;) {
        const piece = Math.floor(at / pieceBytes);
        const to = Math.min((piece + 1) * pieceBytes, offset + length);
        yield { offset: at, length: to - at, kind: hasZeros && isZeroPiece(piece) ? 'zero' : 'data' };
        at = to;
      }
    },
  };
}

/** All bytes of a base. */
export function wholeBase(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  patternBase(sizeBytes).read(bytes, 0);
  return bytes;
}
