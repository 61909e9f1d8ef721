/**
 * The work of threads that use one replacement at once, and what may be read meanwhile. Deterministic, so that every thread knows what the
 * others write.
 *
 * The file, in units of 128 sectors:
 *   0 to 31    shared: each 4 KiB belongs to one writer, the next 4 KiB to the next; never cut off
 *   32 to 47   owned: the whole unit belongs to one writer, which also discards it; never cut off
 *   48 to 95   shared again; the base ends inside unit 63; the resizer cuts off here and lets the file grow
 */
import { unitBytes } from '../../src/replacement/layout.ts';
import { Seeded } from '../seeded.ts';
import { baseSector, sectorBytes, sectorOf } from './pattern-base.ts';

export const writers = 4;
export const baseBytes = 63 * unitBytes + 5 * sectorBytes;
export const stableUnits = 48;
export const allUnits = 96;
const ownedFrom = 32;
const sectorsPerUnit = unitBytes / sectorBytes;
const sectorsPerSlice = 8;
const slicesPerUnit = sectorsPerUnit / sectorsPerSlice;

export type HammerStep =
  { readonly kind: 'write' | 'discard'; readonly sector: number; readonly count: number } | { readonly kind: 'sync' };

/** What writer `writer` does, in order. First it writes a little of every shared unit, as all do, so that all copy it up at once. */
export function stepsOf(seed: string, writer: number, count: number): HammerStep[] {
  const random = new Seeded(`${seed} ${writer}`);
  const steps: HammerStep[] = [];
  for (let unit = 0; unit < allUnits; unit++) {
    if (unit < ownedFrom || unit >= stableUnits) steps.push(sharedWrite(random, writer, unit));
  }
  while (steps.length < count) {
    const dice = random.below(100);
    if (dice < 70) steps.push(sharedWrite(random, writer, sharedUnit(random)));
    else if (dice < 98) steps.push(ownedStep(random, writer));
    else steps.push({ kind: 'sync' });
  }
  return steps;
}

function sharedUnit(random: Seeded): number {
  const unit = random.below(allUnits - (stableUnits - ownedFrom));
  return unit < ownedFrom ? unit : unit + stableUnits - ownedFrom;
}

function sharedWrite(random: Seeded, writer: number, unit: number): HammerStep {
  const slice = writer + writers * random.below(slicesPerUnit / writers);
  const first = random.below(sectorsPerSlice);
  const sector = unit * sectorsPerUnit + slice * sectorsPerSlice + first;
  return { kind: 'write', sector, count: random.between(1, sectorsPerSlice - first) };
}

function ownedStep(random: Seeded, writer: number): HammerStep {
  const unit = ownedFrom + writer + writers * random.below((stableUnits - ownedFrom) / writers);
  const kind = random.oneIn(3) ? 'discard' : 'write';
  if (random.oneIn(2)) return { kind, sector: unit * sectorsPerUnit, count: sectorsPerUnit };
  const first = random.below(sectorsPerUnit);
  return { kind, sector: unit * sectorsPerUnit + first, count: random.between(1, sectorsPerUnit - first) };
}

/** The bytes of a writer's step of this number. */
export function bytesOf(step: { sector: number; count: number }, writer: number, number: number): Buffer {
  return Buffer.concat(Array.from({ length: step.count }, (_, index) => sectorOf(step.sector + index, writer, number)));
}

/** Says of every sector that was read whether it was ever there, and whether one reader sees it go back in time. */
export class SectorJudge {
  readonly #steps: ReadonlyArray<readonly HammerStep[]>;
  readonly #cutsOff: boolean;
  /** By sector, the last step that was seen of its one writer. */
  readonly #seen = new Map<number, number>();

  /** @param cutsOff whether somebody changes the size, after which anything from unit 48 on may be zero, and again what it was */
  constructor(seed: string, count: number, cutsOff: boolean) {
    this.#steps = Array.from({ length: writers }, (_, writer) => stepsOf(seed, writer, count));
    this.#cutsOff = cutsOff;
  }

  /** @throws Error saying what is wrong with it */
  judge(bytes: Buffer, sector: number): void {
    if (bytes.equals(Buffer.alloc(sectorBytes))) {
      if (!this.#mayBeZero(sector)) throw new Error(`sector ${sector} is zero`);
      return;
    }
    const writer = bytes.readUInt32LE(4);
    const number = bytes.readUInt32LE(8);
    const isBase = bytes.equals(baseSector(sector)) && (sector + 1) * sectorBytes <= baseBytes;
    if (!isBase) this.#checkWritten(bytes, sector, writer, number);
    if (this.#cutsOff && sector >= stableUnits * sectorsPerUnit) return;
    const last = this.#seen.get(sector) ?? -1;
    const now = isBase ? -1 : number;
    if (now < last) throw new Error(`sector ${sector} went back from write ${last} to ${now}`);
    this.#seen.set(sector, now);
  }

  /** What this thread itself wrote there and so must find. */
  expectSeen(sector: number, count: number, number: number): void {
    for (let index = sector; index < sector + count; index++) this.#seen.set(index, number);
  }

  #checkWritten(bytes: Buffer, sector: number, writer: number, number: number): void {
    if (writer >= writers || !bytes.equals(sectorOf(sector, writer, number))) {
      throw new Error(`sector ${sector} holds what nobody wrote there: ${bytes.toString('hex')}`);
    }
    const step = this.#steps[writer]?.[number];
    const covered = step?.kind === 'write' && sector >= step.sector && sector < step.sector + step.count;
    if (!covered) throw new Error(`sector ${sector} holds write ${number} of writer ${writer}, which was elsewhere`);
  }

  #mayBeZero(sector: number): boolean {
    const unit = Math.floor(sector / sectorsPerUnit);
    if (unit < ownedFrom) return false;
    if (unit < stableUnits) return true;
    return this.#cutsOff || (sector + 1) * sectorBytes > baseBytes;
  }
}
