/**
 * What holders of the key vouch for: the images that an encrypted image's blocks come from, each with a signed commit, and through it which
 * positions it holds. Whoever consolidated had no key, and can have made none of it up.
 */
import { createHash } from 'node:crypto';
import { FormatError, IntegrityError } from '../base/errors.ts';
import { nilGuid } from '../bytes/guid.ts';
import { checkCommitSignature, type Image } from './image.ts';
import * as format from './layout.ts';
import { MapCursor, stateAt, type LeafStates, type Source } from './provenance.ts';
import type { ChainKey } from './seal.ts';

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
 * @throws IntegrityError, FormatError, UnavailableError
 */
export function vouchedImages(image: Image, key: ChainKey): VouchedImage[] {
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
    expectHash(`${name}: map`, commit.provenanceHash, hashOf(image, source));
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
    for (const message of standingFaults(image, vouched)) yield { image, message: `${image.path}: ${message}` };
    const following = [...vouched, ...(chain[index + 1]?.vouched.slice(0, 1) ?? [])];
    for (const [at, child] of following.slice(0, vouched.length).entries()) {
      const parent = following[at + 1];
      const message = descentFault(child, parent);
      if (message !== undefined) yield { image, message: `${image.path}: ${message}` };
    }
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

/** What each entry of an image must be, leaf by leaf, in order. */
export class Expected {
  readonly #sources: readonly { readonly cursor: MapCursor; readonly vouched: VouchedImage }[];
  readonly #blockBytes: number;
  readonly states = new Uint8Array(format.leafEntries);
  /** Sequence of the image that holds it; of the entries that have one. */
  readonly origins = new Uint32Array(format.leafEntries);

  constructor(image: Image, vouched: readonly VouchedImage[]) {
    this.#blockBytes = image.description.blockBytes;
    const read = (target: Uint8Array, offset: number): void => image.readRaw(target, offset);
    this.#sources = vouched.map((one) => ({ vouched: one, cursor: new MapCursor(read, one.source, image.path) }));
  }

  /** The next leaf that any image holds something of. */
  get nextLeaf(): number | undefined {
    let next: number | undefined;
    for (const { cursor } of this.#sources) {
      const { leafNumber } = cursor;
      if (leafNumber !== undefined && (next === undefined || leafNumber < next)) next = leafNumber;
    }
    return next;
  }

  /** Fills `states` and `origins` with what a leaf must be, and goes on behind it. */
  take(leafNumber: number): void {
    this.states.fill(format.blockState.absent);
    let visibleBytes = Number.POSITIVE_INFINITY;
    for (const { cursor, vouched } of this.#sources) {
      const { sourceSizeBytes, sequence } = vouched.superblock;
      visibleBytes = Math.min(visibleBytes, Number(sourceSizeBytes));
      const states = cursor.take(leafNumber);
      if (states === undefined) continue;
      this.#merge(states, sequence, Math.ceil(visibleBytes / this.#blockBytes) - leafNumber * format.leafEntries);
    }
  }

  #merge(states: LeafStates, sequence: number, visible: number): void {
    for (let index = 0; index < format.leafEntries && index < visible; index++) {
      const state = stateAt(states, index);
      if (this.states[index] !== format.blockState.absent || state === format.blockState.absent) continue;
      this.states[index] = state;
      this.origins[index] = sequence;
    }
  }

  /** What is wrong with an entry of the leaf just taken; undefined when it is as it must be. */
  fault(index: number, found: format.LeafEntry, hasParent: boolean): string | undefined {
    const state = this.states[index];
    const origin = this.origins[index] ?? 0;
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
    return isAbsent && hasParent ? `is not there, but image ${origin} of the chain made it zero` : undefined;
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
