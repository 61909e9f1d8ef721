/**
 * What a replacement holds, against what it should hold: the synthesized file with the guest's writes laid over it. Both sides are named by
 * their hashes, where both are known; of what cannot be known, it is only said how much there is.
 *
 * - A unit that the guest wrote, and all behind the end of the synthesized file, is the guest's: there is nothing to compare it with.
 * - Once the kernel has written by itself (`direct`), nobody knows which units the guest wrote; after a power loss (`suspect`), a unit that
 *   counts as unwritten may hold a write that no flush had covered. A unit that differs then is no proof of anything.
 */
import { createHash } from 'node:crypto';
import type { DataFile } from '../replacement/data-file.ts';
import { presentBit, unitBytes, writtenBit } from '../replacement/layout.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import {
  dataFileOf,
  readVisible,
  shared,
  sizeOf,
  type BaseFile,
  type SharedReplacement,
} from '../replacement/shared.ts';
import { servesAlone } from '../replacement/states.ts';
import type { Proof } from './fill-status.ts';

const maxDifferences = 16;

type Verdict = 'equal' | 'written' | 'grown' | 'missing' | 'different' | 'unknown';

/**
 * Reads all of it. Each unit is looked at once, so that a guest that writes meanwhile is no difference.
 * @throws whatever either file throws
 */
export function proveContents(
  parts: SharedReplacement,
  base: BaseFile,
  onProgress: (doneBytes: number) => void = () => undefined,
): Proof {
  const judge = new UnitJudge(parts, base);
  const [replacement, expected] = [createHash('sha256'), createHash('sha256')];
  const [found, synthesized] = [Buffer.alloc(unitBytes), Buffer.alloc(unitBytes)];
  const sizeBytes = sizeOf(parts);
  const differences: number[] = [];
  const bytesOf = { equal: 0, written: 0, grown: 0, missing: 0, different: 0, unknown: 0 };
  for (let at = 0; at < sizeBytes; at += unitBytes) {
    const ours = found.subarray(0, Math.min(unitBytes, sizeBytes - at));
    const theirs = synthesized.subarray(0, ours.length);
    const verdict = judge.look(at / unitBytes, ours, theirs);
    bytesOf[verdict] += ours.length;
    if (verdict === 'different' && differences.length < maxDifferences) differences.push(at);
    replacement.update(ours);
    expected.update(verdict === 'different' ? theirs : ours);
    onProgress(at + ours.length);
  }
  const isKnown = !judge.isDirect && bytesOf.unknown === 0;
  return {
    replacementSha256: replacement.digest('hex'),
    expectedSha256: isKnown ? expected.digest('hex') : undefined,
    sizeBytes,
    equalBytes: bytesOf.equal,
    grownBytes: bytesOf.grown,
    unknownBytes: bytesOf.unknown,
    isDirect: judge.isDirect,
    writtenUnits: Math.ceil(bytesOf.written / unitBytes),
    missingUnits: Math.ceil(bytesOf.missing / unitBytes),
    differences,
  };
}

class UnitJudge {
  readonly #numbers: BigInt64Array;
  readonly #map: PresenceMap;
  readonly #file: DataFile;
  readonly #base: BaseFile;
  readonly #parts: SharedReplacement;

  constructor(parts: SharedReplacement, base: BaseFile) {
    this.#parts = parts;
    this.#numbers = new BigInt64Array(parts.numbers);
    this.#map = new PresenceMap(parts.presence);
    this.#file = dataFileOf(parts, this.#map);
    this.#base = base;
  }

  get isDirect(): boolean {
    return Atomics.load(this.#numbers, shared.direct) !== 0n;
  }

  /** Fills `ours` with what the unit reads as, and `theirs` with what the synthesized file has there, where that was asked. */
  look(unit: number, ours: Buffer, theirs: Buffer): Verdict {
    for (;;) {
      const resizes = Atomics.load(this.#numbers, shared.resizes);
      const isAsked = this.#needsBase(unit);
      // With no lock held: the image may not answer.
      if (isAsked) readVisible(this.#numbers, this.#base, theirs, unit * unitBytes);
      const verdict = this.#map.locked('unit', unit, () => {
        const isFresh = isAsked && Atomics.load(this.#numbers, shared.resizes) === resizes;
        return this.#needsBase(unit) && !isFresh ? undefined : this.#judge(unit, ours, theirs);
      });
      if (verdict !== undefined) return verdict;
    }
  }

  /** The unit's lock is held. */
  #judge(unit: number, ours: Buffer, theirs: Buffer): Verdict {
    const isGrown = unit * unitBytes >= this.#visibleBytes;
    if (!this.#isOurs(unit)) {
      ours.set(theirs);
      return isGrown ? 'grown' : 'missing';
    }
    this.#file.read(ours, unit * unitBytes);
    if (isGrown) return 'grown';
    if (!this.#needsBase(unit)) return 'written';
    if (ours.equals(theirs)) return 'equal';
    // Asked after the file was read: it is so from before the first such write.
    const isSuspect = Atomics.load(this.#numbers, shared.suspect) !== 0n;
    return this.isDirect || isSuspect ? 'unknown' : 'different';
  }

  /** Whether the data file has the unit. */
  #isOurs(unit: number): boolean {
    return servesAlone(this.#parts) || (this.#bits(unit) & presentBit) !== 0;
  }

  /** Whether the synthesized file's bytes are what the unit reads as, or is compared with. */
  #needsBase(unit: number): boolean {
    if (!this.#isOurs(unit)) return true;
    const isGrown = unit * unitBytes >= this.#visibleBytes;
    return !isGrown && (this.isDirect || (this.#bits(unit) & writtenBit) === 0);
  }

  #bits(unit: number): number {
    return unit < this.#map.unitCount ? this.#map.get(unit) : 0;
  }

  /** How much of the synthesized file shows. */
  get #visibleBytes(): number {
    return Math.min(Number(Atomics.load(this.#numbers, shared.visibleBytes)), this.#base.sizeBytes);
  }
}
