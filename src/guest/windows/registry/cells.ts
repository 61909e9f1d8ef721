/**
 * The cells of a hive that is edited: which are free, and taking and giving back.
 *
 * Every bin and cell is walked once at the start, and they must tile the hive exactly. A cell is taken from the smallest free one that
 * holds it; where none does, from a new bin in the room that the file has behind its last one. The file never becomes longer.
 */
import { CapacityError, FormatError } from '../../../base/errors.ts';
import { alignUp } from '../../../base/ranges.ts';
import { viewOf } from '../../../bytes/view.ts';
import { baseBlock, binAlignmentBytes, binHeader, binsStartBytes, cellAlignmentBytes } from './layout.ts';

interface FreeCell {
  offset: number;
  sizeBytes: number;
}

export class Cells {
  readonly #name: string;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #free: FreeCell[] = [];
  /** One bit for each place where a cell may begin: whether one does. */
  readonly #starts: Uint8Array;

  /** @throws FormatError when bins or cells do not tile the hive */
  constructor(name: string, bytes: Uint8Array) {
    this.#name = name;
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.#starts = new Uint8Array(Math.ceil(bytes.length / cellAlignmentBytes / 8));
    this.#scan();
  }

  get freeBytes(): number {
    return this.#free.reduce((sum, cell) => sum + cell.sizeBytes, 0);
  }

  /** Contents of the cell at `offset`, to be changed. @throws FormatError where no allocated cell begins */
  contents(offset: number): Uint8Array {
    const sizeBytes = this.#isStart(offset) ? -this.#view.getInt32(binsStartBytes + offset, true) : 0;
    if (sizeBytes <= 0) throw this.#wrong('cell', offset, 'no cell in use begins there');
    return this.#bytes.subarray(binsStartBytes + offset + 4, binsStartBytes + offset + sizeBytes);
  }

  /** A cell for `lengthBytes` of contents, zeroed. @throws CapacityError when neither a free cell nor the file's end has the room */
  allocate(lengthBytes: number): number {
    const offset = this.allocateFromFree(lengthBytes);
    if (offset !== undefined) return offset;
    this.#addBin(sizeFor(lengthBytes));
    const fresh = this.allocateFromFree(lengthBytes);
    if (fresh === undefined) throw this.#full(lengthBytes);
    return fresh;
  }

  /** The same from the cells that are free already; undefined where none is large enough. */
  allocateFromFree(lengthBytes: number): number | undefined {
    const wanted = sizeFor(lengthBytes);
    let best: FreeCell | undefined;
    for (const cell of this.#free)
      if (cell.sizeBytes >= wanted && (best === undefined || cell.sizeBytes < best.sizeBytes)) best = cell;
    if (best === undefined) return undefined;
    const { offset } = best;
    if (best.sizeBytes === wanted) {
      this.#free.splice(this.#free.indexOf(best), 1);
    } else {
      best.offset += wanted;
      best.sizeBytes -= wanted;
      this.#mark(best.offset);
      this.#view.setInt32(binsStartBytes + best.offset, best.sizeBytes, true);
    }
    this.#mark(offset);
    this.#view.setInt32(binsStartBytes + offset, -wanted, true);
    this.contents(offset).fill(0);
    return offset;
  }

  /** Gives a cell back; it becomes one with the free ones beside it. */
  release(offset: number): void {
    const freed = { offset, sizeBytes: this.contents(offset).length + 4 };
    const behind = this.#free.findIndex((cell) => cell.offset === offset + freed.sizeBytes);
    const [next] = behind < 0 ? [] : this.#free.splice(behind, 1);
    if (next !== undefined) {
      freed.sizeBytes += next.sizeBytes;
      this.#mark(next.offset, false);
    }
    const before = this.#free.find((cell) => cell.offset + cell.sizeBytes === offset);
    if (before === undefined) this.#free.push(freed);
    else {
      before.sizeBytes += freed.sizeBytes;
      this.#mark(offset, false);
    }
    const merged = before ?? freed;
    this.#view.setInt32(binsStartBytes + merged.offset, merged.sizeBytes, true);
  }

  #scan(): void {
    const { binsLength } = baseBlock.parse(this.#bytes);
    for (let bin = 0; bin < binsLength;) {
      const { offset, sizeBytes } = binHeader.parse(this.#bytes, binsStartBytes + bin);
      const sound =
        offset === bin && sizeBytes > 0 && sizeBytes % binAlignmentBytes === 0 && bin + sizeBytes <= binsLength;
      if (!sound) throw this.#wrong('bin', bin, `a bin for ${offset} of ${sizeBytes} bytes`);
      this.#scanBin(bin, bin + sizeBytes);
      bin += sizeBytes;
    }
  }

  #scanBin(bin: number, end: number): void {
    for (let offset = bin + binHeader.sizeBytes; offset < end;) {
      const size = this.#view.getInt32(binsStartBytes + offset, true);
      const sizeBytes = Math.abs(size);
      if (sizeBytes < cellAlignmentBytes || sizeBytes % cellAlignmentBytes !== 0 || offset + sizeBytes > end)
        throw this.#wrong('cell', offset, `a cell of ${size} bytes in a bin with ${end - offset} left`);
      this.#mark(offset);
      if (size > 0) this.#free.push({ offset, sizeBytes });
      offset += sizeBytes;
    }
  }

  #addBin(cellBytes: number): void {
    const { binsLength } = baseBlock.parse(this.#bytes);
    const sizeBytes = alignUp(cellBytes + binHeader.sizeBytes, binAlignmentBytes);
    if (binsStartBytes + binsLength + sizeBytes > this.#bytes.length) throw this.#full(cellBytes);
    const at = binsStartBytes + binsLength;
    this.#bytes.fill(0, at, at + sizeBytes);
    binHeader.encode({ offset: binsLength, sizeBytes, timestamp: 0n }, this.#bytes, at);
    const cell = { offset: binsLength + binHeader.sizeBytes, sizeBytes: sizeBytes - binHeader.sizeBytes };
    this.#view.setInt32(binsStartBytes + cell.offset, cell.sizeBytes, true);
    this.#view.setUint32(baseBlock.offsetOf('binsLength'), binsLength + sizeBytes, true);
    this.#mark(cell.offset);
    this.#free.push(cell);
  }

  #mark(offset: number, begins = true): void {
    const index = offset / cellAlignmentBytes;
    const at = Math.floor(index / 8);
    const bit = 2 ** (index % 8);
    this.#starts[at] = begins ? (this.#starts[at] ?? 0) | bit : (this.#starts[at] ?? 0) & ~bit;
  }

  #isStart(offset: number): boolean {
    const index = offset / cellAlignmentBytes;
    return Number.isInteger(index) && ((this.#starts[Math.floor(index / 8)] ?? 0) & (2 ** (index % 8))) !== 0;
  }

  #full(lengthBytes: number): CapacityError {
    return new CapacityError(
      `registry hive ${this.#name}: no room for a cell of ${lengthBytes} bytes: the largest free one has ` +
        `${Math.max(0, ...this.#free.map((cell) => cell.sizeBytes))}, and the file has no room for another bin`,
    );
  }

  #wrong(field: string, cell: number, detail: string): FormatError {
    return new FormatError(`registry hive ${this.#name}`, field, binsStartBytes + cell, detail);
  }
}

function sizeFor(lengthBytes: number): number {
  return alignUp(lengthBytes + 4, cellAlignmentBytes);
}
