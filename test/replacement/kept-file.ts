/** A native file whose writes are kept, as tests open it: over a pattern for a base, in a folder. */
import { closeAll, type Closable } from '../../src/base/ownership.ts';
import { MiB } from '../../src/base/units.ts';
import { ChainKey } from '../../src/backup/crypto/seal.ts';
import { planGeometry } from '../../src/native/formats.ts';
import { encodePluginFile } from '../../src/plugin/plugin-file.ts';
import { openReplacement, type OpenReplacement, type ReplacementPlace } from '../../src/replacement/open.ts';
import { Filler } from '../../src/fill/filler.ts';
import { Replacement } from '../../src/replacement/replacement.ts';
import { patternBase } from './pattern-base.ts';

const pluginId = '6f2d1c9e-0b7a-4e53-8a41-d3c5e7f90b12';
/** Boots that are not this one. */
export const otherBoots = ['00000000-1111-4222-8333-444444444444', '99999999-8888-4777-8666-555555555555'] as const;

/** Both kinds of data files. */
export const kinds = ['plain', 'sealed'] as const;
export type Kind = (typeof kinds)[number];

export const testKey = new ChainKey({
  chainId: '0d9c2f6e-5a1b-4c3d-8e7f-a1b2c3d4e5f6',
  bytes: Uint8Array.from({ length: 32 }, (_, index) => index * 7 + 1),
}).toThread();

export function placeOf(path: string, baseBytes: number, kind: Kind = 'plain'): ReplacementPlace {
  return { path, pluginId, baseBytes, isSealed: kind === 'sealed' };
}

/** The text of a plugin file to which such places belong. */
export function pluginText(): string {
  const sizeBytes = MiB;
  const facts = { sizeBytes, logicalSectorBytes: 512, physicalSectorBytes: 4096, identity: pluginId };
  const source = {
    kind: 'chain',
    path: 'vm.spf',
    imageId: pluginId,
    chainId: pluginId,
    createdAt: '2026-01-02T03:04:05.678Z',
  } as const;
  const native = planGeometry('raw', { ...facts, allocatedRuns: () => [] }, {});
  return Buffer.from(
    encodePluginFile({ id: pluginId, source, disk: { content: 'disk', sizeBytes }, native }),
  ).toString();
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
    this.open = openReplacement(place, place.isSealed ? testKey : undefined, bootId);
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
