/**
 * A data file that is sealed at rest: AES-256-XTS ([IEEE 1619]; [NIST SP 800-38E]) in data units of one page of 4 KiB, tweaked by the page's
 * number in the file. As with any disk encryption of this kind it keeps secrets and does not prove that nobody changed a byte: a seal with a
 * checksum would need room of its own, and one torn by a power loss would take its unwritten neighbours along. Here a page that is torn
 * between its sectors is old in some sectors and new in others, as on the plain disk.
 *
 *   0        page 0, 1, ...: each whole, sealed; a sector of 512 bytes that is stored as zeros reads as zeros, so that holes stay holes
 *   then     as many zeros as the last page has bytes in use, 1 to 4,096: so the length of the file says how long what it holds is; and where a
 *            power loss took the length but not the pages of a write, these do not pass for what somebody wrote on purpose
 *
 * What holds at all times, but after a crash before the next open (`settle`):
 * - behind the end of what it holds, the last page is zero, and so are the bytes behind the last page
 *
 * Order of a write past the end, under the lock of its unit: 1. the length, under the lock of the end; 2. the pages.
 * Crash order of a cut, with the locks of all units held:
 * 1. the length, and fdatasync: else what 2 writes could reach pages that are still shown
 * 2. zeros behind the last page, then that page, and fdatasync: else the next growth could show what was cut off
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto';
import * as fs from '../base/fs.ts';
import { flushFile, resizeFile } from '../base/durable.ts';
import { readFully, writeFully } from '../base/full-io.ts';
import { alignUp } from '../base/ranges.ts';
import { KiB } from '../base/units.ts';
import { seekData, seekHole } from '../disk/lseek.ts';
import { madeHole, type DataFile } from './data-file.ts';
import { unitBytes } from './layout.ts';
import type { PresenceMap } from './presence-map.ts';
import { punchHole } from './punch-hole.ts';

/** Two keys of 256 bits. */
export const sealKeyBytes = 64;
const pageBytes = 4 * KiB;
const sectorBytes = 512;
const tweakBytes = 16;
const algorithm = 'aes-256-xts';

/** Length of the sealed file that holds so many bytes. */
export function storedBytesOf(sizeBytes: number): number {
  return alignUp(sizeBytes, pageBytes) + usedOfLastPage(sizeBytes);
}

/** What a sealed file of this length holds. */
export function heldBytesOf(storedBytes: number): number {
  return (
    Math.max(0, pagesOf(storedBytes) - 1) * pageBytes + (pagesOf(storedBytes) > 0 ? usedOfLastPage(storedBytes) : 0)
  );
}

/** Pages before the zeros at the end. */
function pagesOf(storedBytes: number): number {
  return Math.max(0, Math.ceil(storedBytes / pageBytes) - 1);
}

function usedOfLastPage(sizeBytes: number): number {
  return sizeBytes === 0 ? 0 : ((sizeBytes - 1) % pageBytes) + 1;
}

export class SealedFile implements DataFile {
  readonly #fd: number;
  readonly #name: string;
  readonly #map: PresenceMap;
  readonly #key: KeyObject;
  readonly #tweak = new Uint8Array(tweakBytes);
  readonly #tweakView = new DataView(this.#tweak.buffer);
  /** Pages as they are stored. */
  readonly #stored = new Uint8Array(unitBytes);
  /** A page that is written in part: as it is stored, and open. */
  readonly #storedPage = new Uint8Array(pageBytes);
  readonly #page = new Uint8Array(pageBytes);

  /** @param key of this very file: sealKeyBytes */
  constructor(fd: number, name: string, key: Uint8Array, map: PresenceMap) {
    this.#fd = fd;
    this.#name = name;
    this.#map = map;
    this.#key = createSecretKey(key);
  }

  get sizeBytes(): number {
    return heldBytesOf(fs.fstatSync(this.#fd).size);
  }

  read(target: Uint8Array, offset: number): void {
    for (let done = 0; done < target.length;) {
      const at = offset + done;
      const from = at - (at % pageBytes);
      const part = target.subarray(done, done + from + unitBytes - at);
      this.#readPart(part, at - from, from);
      done += part.length;
    }
  }

  write(source: Uint8Array, offset: number): void {
    const end = offset + source.length;
    const held = this.#growTo(end);
    const from = offset - (offset % pageBytes);
    const pages = Math.ceil((end - from) / pageBytes);
    for (let page = 0; page < pages; page++) {
      const at = from + page * pageBytes;
      const part = source.subarray(Math.max(0, at - offset), at + pageBytes - offset);
      const whole = part.length === pageBytes ? part : this.#merged(at, part, Math.max(offset, at), held);
      this.#stored.set(this.#seal(whole, at), page * pageBytes);
    }
    writeFully(this.#fd, this.#stored.subarray(0, pages * pageBytes), from, this.#name);
  }

  makeHole(offset: number, lengthBytes: number): void {
    punchHole(this.#fd, offset, lengthBytes, this.#name);
  }

  zero(offset: number, lengthBytes: number): void {
    const end = offset + lengthBytes;
    const firstPage = alignUp(offset, pageBytes);
    // Behind the end of what it holds the last page is zero already.
    const endPage = end >= this.sizeBytes ? alignUp(end, pageBytes) : end - (end % pageBytes);
    if (firstPage >= endPage || !madeHole(this, firstPage, endPage - firstPage)) {
      this.write(new Uint8Array(lengthBytes), offset);
      return;
    }
    if (firstPage > offset) this.write(new Uint8Array(firstPage - offset), offset);
    if (end > endPage) this.write(new Uint8Array(end - endPage), endPage);
  }

  resize(sizeBytes: number): void {
    if (sizeBytes < this.sizeBytes) this.#cut(sizeBytes);
    else resizeFile(this.#fd, storedBytesOf(sizeBytes), this.#name);
  }

  /**
   * Makes true again what a crash may have left untrue. Nobody else uses the file.
   * @param cutBytes where a cut to so many bytes was under way: that is finished
   */
  settle(cutBytes?: number): void {
    if (this.#isTorn()) this.#endBehindPages();
    // What had made it longer than that before the cut may be lost.
    this.#cut(Math.min(cutBytes ?? Infinity, this.sizeBytes));
    if (cutBytes !== undefined) flushFile(this.#fd, this.#name);
  }

  /** As long as `settle` will make it. */
  get settledBytes(): number {
    const { size } = fs.fstatSync(this.#fd);
    return this.#isTorn() ? pagesOf(size) * pageBytes : heldBytesOf(size);
  }

  nextData(offset: number): number | undefined {
    return seekData(this.#fd, offset, this.#name);
  }

  nextHole(offset: number): number | undefined {
    return seekHole(this.#fd, offset, this.#name);
  }

  /**
   * Whether a write that made the file longer, and that a power loss has torn between sectors, is why it ends where it does: its new length was
   * lost, and what should be zeros at the end are not.
   */
  #isTorn(): boolean {
    const { size } = fs.fstatSync(this.#fd);
    const behind = usedOfLastPage(size);
    return behind % sectorBytes === 0 && !isZero(this.#storedAt(size - behind, behind));
  }

  /** After such a power loss: all whole pages are held, and what was written behind them, which nobody had flushed, is gone. */
  #endBehindPages(): void {
    const { size } = fs.fstatSync(this.#fd);
    const held = pagesOf(size) * pageBytes;
    resizeFile(this.#fd, storedBytesOf(held), this.#name);
    const behind = Math.min(size, storedBytesOf(held)) - held;
    writeFully(this.#fd, new Uint8Array(behind), held, this.#name);
    flushFile(this.#fd, this.#name);
  }

  /** The length first, so that it is right whatever of the pages a crash leaves. @returns how long it is then */
  #growTo(end: number): number {
    const held = this.sizeBytes;
    if (end <= held) return held;
    return this.#map.locked('end', 0, () => {
      const now = this.sizeBytes;
      if (end > now) resizeFile(this.#fd, storedBytesOf(end), this.#name);
      return Math.max(now, end);
    });
  }

  #cut(sizeBytes: number): void {
    const used = usedOfLastPage(sizeBytes);
    const at = sizeBytes - used;
    // What cannot be read is known before anything changes.
    const last = used === 0 ? new Uint8Array(0) : this.#open(this.#storedAt(at, pageBytes), at);
    const storedBytes = storedBytesOf(sizeBytes);
    if (fs.fstatSync(this.#fd).size !== storedBytes) resizeFile(this.#fd, storedBytes, this.#name);
    if (used === 0) return;
    const rest = this.#storedAt(at + pageBytes, used);
    const isTailClean = isZero(last.subarray(used));
    const isRestClean = isZero(rest);
    if (isTailClean && isRestClean) return;
    flushFile(this.#fd, this.#name);
    // What is no zeros has its room; to write into a hole could take some on a full disk.
    if (!isRestClean) writeFully(this.#fd, new Uint8Array(used), at + pageBytes, this.#name);
    if (!isTailClean) {
      last.fill(0, used);
      writeFully(this.#fd, this.#seal(last, at), at, this.#name);
    }
    flushFile(this.#fd, this.#name);
  }

  #readPart(target: Uint8Array, skipBytes: number, from: number): void {
    const pages = Math.ceil((skipBytes + target.length) / pageBytes);
    const stored = this.#stored.subarray(0, pages * pageBytes);
    readFully(this.#fd, stored, from, this.#name);
    for (let page = 0; page < pages; page++) {
      const at = page * pageBytes;
      const bytes = this.#open(stored.subarray(at, at + pageBytes), from + at);
      const first = Math.max(0, skipBytes - at);
      target.set(bytes.subarray(first, Math.min(pageBytes, skipBytes + target.length - at)), at + first - skipBytes);
    }
  }

  /** The page at `at` with a part of it written. What lies behind the end is zero, whatever was left there. */
  #merged(at: number, part: Uint8Array, partAt: number, held: number): Uint8Array {
    readFully(this.#fd, this.#storedPage, at, this.#name);
    this.#page.set(this.#open(this.#storedPage, at));
    this.#page.set(part, partAt - at);
    if (held < at + pageBytes) this.#page.fill(0, held - at);
    return this.#page;
  }

  #seal(page: Uint8Array, at: number): Uint8Array {
    return createCipheriv(algorithm, this.#key, this.#tweakOf(at)).update(page);
  }

  /** Of the caller alone. */
  #open(stored: Uint8Array, at: number): Uint8Array {
    const page = createDecipheriv(algorithm, this.#key, this.#tweakOf(at)).update(stored);
    for (let sector = 0; sector < pageBytes; sector += sectorBytes) {
      // Most sectors do not start with a zero.
      if (stored[sector] !== 0 || !isZero(stored.subarray(sector, sector + sectorBytes))) continue;
      page.fill(0, sector, sector + sectorBytes);
    }
    return page;
  }

  #tweakOf(at: number): Uint8Array {
    this.#tweakView.setBigUint64(0, BigInt(at / pageBytes), true);
    return this.#tweak;
  }

  #storedAt(at: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    readFully(this.#fd, bytes, at, this.#name);
    return bytes;
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
