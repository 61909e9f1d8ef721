/** A native file whose writes are kept, as tests open it: over a pattern for a base, in a folder. */
import { closeAll, type Closable } from '../../src/base/ownership.ts';
import { openReplacement, type OpenReplacement, type ReplacementPlace } from '../../src/replacement/open.ts';
import { Filler } from '../../src/replacement/fill.ts';
import { Replacement } from '../../src/replacement/replacement.ts';
import { patternBase } from './pattern-base.ts';

const pluginId = '6f2d1c9e-0b7a-4e53-8a41-d3c5e7f90b12';
/** Boots that are not this one. */
export const otherBoots = ['00000000-1111-4222-8333-444444444444', '99999999-8888-4777-8666-555555555555'] as const;

export function placeOf(path: string, baseBytes: number): ReplacementPlace {
  return { path, pluginId, baseBytes };
}

/** Names of the files of a replacement. */
export function filesOf(place: ReplacementPlace): { data: string; map: string } {
  return { data: `${place.path}.replacement`, map: `${place.path}.replacement-map` };
}

export class KeptFile implements Disposable, Closable {
  readonly replacement: Replacement;
  readonly open: OpenReplacement;
  readonly filler: Filler;

  constructor(place: ReplacementPlace, bootId?: string) {
    this.open = bootId === undefined ? openReplacement(place) : openReplacement(place, bootId);
    const base = patternBase(place.baseBytes, true);
    this.replacement = new Replacement(this.open.parts, base);
    this.filler = new Filler(this.open.parts, base);
  }

  get sizeBytes(): number {
    return this.replacement.sizeBytes;
  }

  /** What is there of a range. */
  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length, 0xa5);
    return bytes.subarray(0, this.replacement.read(bytes, offset));
  }

  close(): void {
    closeAll([this.open]);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
