/**
 * What holders of the key vouch for: the images that an encrypted image's blocks come from, each with a signed commit, and through it which
 * positions it holds. Whoever consolidated had no key, and can have made none of it up.
 */
import { createHash } from 'node:crypto';
import { FormatError, IntegrityError } from '../../base/errors.ts';
import { nilGuid } from '../../bytes/guid.ts';
import { checkCommitSignature } from '../crypto/commit-signature.ts';
import type { ChainKey } from '../crypto/seal.ts';
import * as format from '../format/layout.ts';
import { MapCursor, stateAt, type LeafStates, type Source } from '../format/provenance.ts';
import type { Image } from './image.ts';

/** An image whose commit was signed. */
export interface VouchedImage {
  readonly source: Source;
  readonly superblock: format.Superblock;
  /** Hex. */
  readonly commitHash: string;
  readonly parentCommitHash: string;
}

const readBytes = 256 * 1024;

/**
 * The sources of an image, newest first, each checked to be signed, with its superblock and its map as signed.
 * @param readMap reads a source's map and gives its SHA-256, in hex
 * @throws IntegrityError, FormatError, UnavailableError
 */
export function vouchedImages(
  image: Image,
  key: ChainKey,
  readMap: (source: Source) => string = (source) => hashOf(image, source),
): VouchedImage[] {
  return image.sources().map((source) => {
    const name = `${image.path}: provenance of image ${source.sequence} of the chain`;
    const commitBlock = new Uint8Array(format.commitBytes);
    image.readRaw(commitBlock, source.commitOffset);
    checkCommitSignature(commitBlock, key, name);
    const commit = format.commit.parse(commitBlock);
    const superblockBytes = new Uint8Array(format.superblockBytes);
    image.readRaw(superblockBytes, source.superblockOffset);
    expectHash(`${name}: superblock`, commit.superblockHash, sha256(superblockBytes));
    const superblock = format.superblock.parse(superblockBytes);
    if (superblock.imageId !== source.imageId || superblock.sequence !== source.sequence)
      throw new FormatError(name, 'identity', source.superblockOffset, 'is that of another image');
    if (BigInt(source.mapBytes) !== commit.provenanceBytes)
      throw new FormatError(name, 'map length', source.mapOffset, 'is not what was signed');
    expectHash(`${name}: map`, commit.provenanceHash, readMap(source));
    return {
      source,
      superblock,
      commitHash: sha256(commitBlock),
      parentCommitHash: Buffer.from(commit.parentCommitHash).toString('hex'),
    };
  });
}

/**
 * What is wrong with an image as the one that stands for its vouched ones, and with these as a line of descent; in one line for each.
 * @param newest first, of all images of a chain, those of each in their order
 */
export function* lineageFaults(
  chain: readonly { readonly image: Image; readonly vouched: readonly VouchedImage[] }[],
): Generator<{ readonly image: Image; readonly message: string }> {
  for (const [index, { image, vouched }] of chain.entries()) {
    yield* faultsWithin(image, vouched);
    const oldest = vouched.at(-1);
    const message = oldest === undefined ? undefined : descentFault(oldest, chain[index + 1]?.vouched[0]);
    if (message !== undefined) yield { image, message: `${image.path}: ${message}` };
  }
}

/** As `lineageFaults`, of one image alone: nothing is said of whether its parent is the one that belongs there. */
export function* faultsWithin(
  image: Image,
  vouched: readonly VouchedImage[],
): Generator<{ readonly image: Image; readonly message: string }> {
  for (const message of standingFaults(image, vouched)) yield { image, message: `${image.path}: ${message}` };
  for (const [at, parent] of vouched.slice(1).entries()) {
    const child = vouched[at];
    const message = child === undefined ? undefined : descentFault(child, parent);
    if (message !== undefined) yield { image, message: `${image.path}: ${message}` };
  }
}

/** Of a consolidated image: it must say of itself what its newest source says. */
function* standingFaults({ description }: Image, vouched: readonly VouchedImage[]): Generator<string> {
  const newest = vouched[0];
  if (newest === undefined) return;
  const { superblock } = newest;
  const oldest = vouched.at(-1) ?? newest;
  const lowestBytes = Math.min(...vouched.map(({ superblock: { sourceSizeBytes } }) => Number(sourceSizeBytes)));
  const parentId = description.parent?.imageId ?? nilGuid;
  const facts: readonly (readonly [what: string, same: boolean])[] = [
    ['identity', description.imageId === superblock.imageId && description.sequence === superblock.sequence],
    ['chain', description.chainId === superblock.chainId],
    ['disk size', BigInt(description.sourceSizeBytes) === superblock.sourceSizeBytes],
    ['visible size', description.visibleBytes === lowestBytes],
    ['block size', description.blockBytes === superblock.blockBytes],
    ['content', format.imageContents.indexOf(description.content) === superblock.content],
    ['logical sector size', description.logicalSectorBytes === superblock.logicalSectorBytes],
    ['physical sector size', description.physicalSectorBytes === superblock.physicalSectorBytes],
    ['time', BigInt(description.createdAt.getTime()) === superblock.createdAtMs],
    ['commit that it stands for', description.lineageHash === newest.commitHash],
    ['parent', parentId === oldest.superblock.parentId],
    ['parent commit', (description.parent?.commitHash ?? oldest.parentCommitHash) === oldest.parentCommitHash],
  ];
  for (const [what, same] of facts) if (!same) yield `its ${what} is not what was signed`;
}

function descentFault(child: VouchedImage, parent: VouchedImage | undefined): string | undefined {
  const { sequence, parentId } = child.superblock;
  if (parent === undefined) {
    return parentId === nilGuid
      ? undefined
      : `nothing is known of the parent of image ${sequence} of the chain; it was left out`;
  }
  const isParent = parent.superblock.imageId === parentId && parent.commitHash === child.parentCommitHash;
  if (isParent) return undefined;
  return `image ${parent.superblock.sequence} of the chain is not the parent of image ${sequence}; one between them was left out, or their order changed`;
}

/** What each entry of a leaf must be. */
export class ExpectedLeaf {
  readonly #blockBytes: number;
  readonly #vouched: readonly VouchedImage[];
  readonly #hasParent: boolean;
  readonly #states = new Uint8Array(format.leafEntries);
  /** Sequence of the image that holds it; of the entries that have one. */
  readonly #origins = new Uint32Array(format.leafEntries);

  constructor({ description }: Image, vouched: readonly VouchedImage[]) {
    this.#blockBytes = description.blockBytes;
    this.#hasParent = description.parent !== undefined;
    this.#vouched = vouched;
  }

  /** @param statesIn what the map of one of the vouched images, by its index, says of the leaf */
  become(leafNumber: number, statesIn: (index: number) => LeafStates | undefined): void {
    this.#states.fill(format.blockState.absent);
    let visibleBytes = Number.POSITIVE_INFINITY;
    for (const [index, { superblock }] of this.#vouched.entries()) {
      visibleBytes = Math.min(visibleBytes, Number(superblock.sourceSizeBytes));
      const states = statesIn(index);
      if (states === undefined) continue;
      const visible = Math.ceil(visibleBytes / this.#blockBytes) - leafNumber * format.leafEntries;
      this.#merge(states, superblock.sequence, visible);
    }
  }

  #merge(states: LeafStates, sequence: number, visible: number): void {
    for (let index = 0; index < format.leafEntries && index < visible; index++) {
      const state = stateAt(states, index);
      if (this.#states[index] !== format.blockState.absent || state === format.blockState.absent) continue;
      this.#states[index] = state;
      this.#origins[index] = sequence;
    }
  }

  /** What is wrong with an entry; undefined when it is as it must be. */
  fault(index: number, found: Pick<format.LeafEntry, 'state' | 'originSequence'>): string | undefined {
    const state = this.#states[index];
    const origin = this.#origins[index] ?? 0;
    const isData = found.state === format.blockState.data;
    if (state === format.blockState.data) {
      if (!isData) return `is not there, but image ${origin} of the chain holds it`;
      if (found.originSequence === origin) return undefined;
      return `is the one of image ${found.originSequence} of the chain, but the newest is that of image ${origin}`;
    }
    if (isData) {
      if (state === format.blockState.absent) return `is there, but no image of the chain holds it`;
      return `is the one of image ${found.originSequence} of the chain, but image ${origin} made it zero`;
    }
    const isAbsent = found.state === format.blockState.absent;
    if (state === format.blockState.absent) return isAbsent ? undefined : 'is zero, but no image of the chain says so';
    return isAbsent && this.#hasParent ? `is not there, but image ${origin} of the chain made it zero` : undefined;
  }
}

/** What each entry of an image must be, leaf by leaf, in order. */
export class Expected {
  readonly #cursors: readonly MapCursor[];
  readonly #leaf: ExpectedLeaf;

  constructor(image: Image, vouched: readonly VouchedImage[]) {
    const read = (target: Uint8Array, offset: number): void => image.readRaw(target, offset);
    this.#cursors = vouched.map(({ source }) => new MapCursor(read, source, image.path));
    this.#leaf = new ExpectedLeaf(image, vouched);
  }

  /** The next leaf that any image holds something of. */
  get nextLeaf(): number | undefined {
    let next: number | undefined;
    for (const { leafNumber } of this.#cursors) {
      if (leafNumber !== undefined && (next === undefined || leafNumber < next)) next = leafNumber;
    }
    return next;
  }

  /** Takes up what a leaf must be, for `fault`, and goes on behind it. */
  take(leafNumber: number): void {
    this.#leaf.become(leafNumber, (index) => this.#cursors[index]?.take(leafNumber));
  }

  /** See ExpectedLeaf.fault; of the leaf just taken. */
  fault(index: number, found: format.LeafEntry): string | undefined {
    return this.#leaf.fault(index, found);
  }
}

function hashOf(image: Image, { mapOffset, mapBytes }: Source): string {
  const digest = createHash('sha256');
  const buffer = new Uint8Array(Math.min(readBytes, mapBytes));
  for (let done = 0; done < mapBytes; done += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, mapBytes - done));
    image.readRaw(part, mapOffset + done);
    digest.update(part);
  }
  return digest.digest('hex');
}

function expectHash(what: string, expected: Uint8Array, actual: string): void {
  const wanted = Buffer.from(expected).toString('hex');
  if (wanted !== actual) throw new IntegrityError(what, wanted, actual);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
