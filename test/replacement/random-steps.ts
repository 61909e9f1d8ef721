/** What a hypervisor and a fill may do to a file, at random, done to a replacement and to a model of it alike. */
import { KiB } from '../../src/base/units.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { releaseCopies } from '../../src/fill/release.ts';
import { ModelDisk } from '../disk/model-disk.ts';
import type { Seeded } from '../seeded.ts';
import type { KeptFile } from './kept-file.ts';
import { patternBase } from './pattern-base.ts';

export type Step =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'discard'; readonly offset: number; readonly length: number }
  | { readonly kind: 'truncate'; readonly sizeBytes: number }
  | { readonly kind: 'sync' }
  /** The fill copies units, or a whole region with its zeros, or gives back what it copied: the contents stay. */
  | { readonly kind: 'fill'; readonly offset: number; readonly length: number }
  | { readonly kind: 'fill region' }
  | { readonly kind: 'release' };

/** The part of the file in which steps are made. */
export interface Arena {
  readonly from: number;
  /** Writes and truncations do not make the file longer than this. */
  readonly to: number;
}

export function nextStep(random: Seeded, sizeBytes: number, arena: Arena): Step {
  const kind = random.below(100);
  if (kind < 58) {
    const { offset, length } = nextRange(random, Math.min(sizeBytes + 2 * unitBytes, arena.to), arena);
    return { kind: 'write', offset, bytes: random.bytes(length) };
  }
  if (kind < 68) return { kind: 'fill', ...nextRange(random, arena.to, arena) };
  if (kind < 69) return { kind: 'fill region' };
  if (kind < 71) return { kind: 'release' };
  if (kind < 84) return { kind: 'discard', ...nextRange(random, arena.to, arena) };
  if (kind < 91) return { kind: 'truncate', sizeBytes: nextSize(random, sizeBytes, arena) };
  return { kind: 'sync' };
}

/** Aligned to a unit, a page, a sector or nothing; of a few bytes, or up to three units. */
export function nextRange(random: Seeded, end: number, arena: Arena): { offset: number; length: number } {
  const alignment = random.pick([unitBytes, 4 * KiB, 512, 1]);
  const within = Math.max(1, end - arena.from);
  const offset = arena.from + Math.floor(random.below(within) / alignment) * alignment;
  const units = random.pick([1, 8 * KiB, unitBytes, 3 * unitBytes]);
  const length = Math.max(1, Math.ceil(random.between(1, units) / alignment) * alignment);
  return { offset, length: Math.min(length, arena.to - offset) };
}

function nextSize(random: Seeded, sizeBytes: number, arena: Arena): number {
  const near = sizeBytes + random.between(-2 * unitBytes, 2 * unitBytes);
  const size = random.oneIn(4) ? random.between(arena.from, arena.to) : near;
  return Math.max(arena.from, Math.min(size, arena.to));
}

export function applyTo(file: KeptFile, step: Step): void {
  const { replacement, filler } = file;
  switch (step.kind) {
    case 'write':
      replacement.write(step.bytes, step.offset);
      return;
    case 'discard':
      replacement.discard(step.offset, step.length);
      return;
    case 'truncate':
      replacement.truncate(step.sizeBytes);
      return;
    case 'sync':
      replacement.sync();
      return;
    case 'fill':
      filler.copy(Math.floor(step.offset / unitBytes), Math.ceil((step.offset + step.length) / unitBytes));
      return;
    case 'fill region':
      for (const bytes of filler.fill(0, () => 16)) if (bytes < 0) return;
      return;
    case 'release':
      releaseCopies(file.open.parts);
  }
}

export function applyToModel(model: ModelDisk, step: Step): void {
  switch (step.kind) {
    case 'write': {
      const end = step.offset + step.bytes.length;
      if (end > model.sizeBytes) model.resize(end);
      model.write(step.offset, step.bytes);
      return;
    }
    case 'discard': {
      const end = Math.min(step.offset + step.length, model.sizeBytes);
      if (end > step.offset) model.zero(step.offset, end - step.offset);
      return;
    }
    case 'truncate':
      model.resize(step.sizeBytes);
      return;
    case 'sync':
    case 'fill':
    case 'fill region':
    case 'release':
  }
}

/** For messages: what was done, without the bytes. */
export function describeStep(step: Step): string {
  return step.kind === 'write' ? `write ${step.bytes.length} bytes at ${step.offset}` : JSON.stringify(step);
}

/** A model of the untouched file; below `from` it holds nothing, and is not to be asked. */
export function modelOfBase(baseBytes: number, from = 0): ModelDisk {
  const model = new ModelDisk(baseBytes);
  const bytes = Buffer.alloc(baseBytes - from);
  patternBase(baseBytes, true).read(bytes, from);
  model.write(from, bytes);
  return model;
}
