/** Trees of items under keys: nodes are checked (checksum, address, generation, level) whenever they are read, in either of their copies. */
import { LRUCache } from 'lru-cache';
import { firstIndex } from '../../base/search.ts';
import { FormatError, VeneerError } from '../../base/errors.ts';
import type { Guid } from '../../bytes/guid.ts';
import type { VolumeReader } from '../volume-reader.ts';
import { checkBlock, type Checksum } from './checksums.ts';
import type { ChunkMap } from './chunks.ts';
import * as format from './layout.ts';

export interface TreeRoot {
  readonly address: bigint;
  readonly level: number;
  readonly generation: bigint;
}

export interface Item {
  readonly key: format.Key;
  readonly data: Uint8Array;
  /** The leaf that it is in, and where in it. */
  readonly leaf: Node;
  readonly at: number;
}

export interface Node {
  readonly bytes: Uint8Array;
  readonly address: bigint;
  readonly level: number;
  readonly itemCount: number;
}

const maxLevel = 8;
const keptNodes = 256;

export class Trees {
  readonly reader: VolumeReader;
  readonly chunks: ChunkMap;
  readonly checksum: Checksum;
  readonly nodeBytes: number;
  readonly #fsid: Guid;
  readonly #nodes = new LRUCache<bigint, Node>({ max: keptNodes });

  constructor(reader: VolumeReader, chunks: ChunkMap, checksum: Checksum, nodeBytes: number, fsid: Guid) {
    this.reader = reader;
    this.chunks = chunks;
    this.checksum = checksum;
    this.nodeBytes = nodeBytes;
    this.#fsid = fsid;
  }

  /**
   * The items from key `first` to key `last`, both included, in order.
   * @throws FormatError, IntegrityError
   */
  *items(root: TreeRoot, first: format.Key, last: format.Key): Generator<Item> {
    yield* this.#below(this.#root(root), first, last, { previous: undefined });
  }

  /** The last item whose key is not above `wanted`. */
  lastUpTo(root: TreeRoot, wanted: format.Key): Item | undefined {
    let node = this.#root(root);
    while (node.level > 0) {
      const index = this.#childFor(node, wanted);
      node = this.#child(node, Math.max(0, index));
    }
    let found: Item | undefined;
    for (const item of this.#leafItems(node)) {
      if (compare(item.key, wanted) > 0) break;
      found = item;
    }
    return found;
  }

  #root(root: TreeRoot): Node {
    if (root.level >= maxLevel) throw new FormatError('btrfs tree', 'level', 0, `${root.level}`);
    return this.#node(root.address, root.level, root.generation);
  }

  /** Keys rise from item to item, also from leaf to leaf: no tree, however its nodes point, is walked twice. */
  *#below(
    node: Node,
    first: format.Key,
    last: format.Key,
    walk: { previous: format.Key | undefined },
  ): Generator<Item> {
    if (node.level === 0) {
      for (const item of this.#leafItems(node)) {
        if (walk.previous !== undefined && compare(item.key, walk.previous) <= 0)
          throw new FormatError('btrfs leaf', 'key', item.at, 'is not above the one before it');
        walk.previous = item.key;
        if (compare(item.key, last) > 0) return;
        if (compare(item.key, first) >= 0) yield item;
      }
      return;
    }
    for (let index = Math.max(0, this.#childFor(node, first)); index < node.itemCount; index++) {
      if (compare(this.#pointer(node, index).key, last) > 0) return;
      const child = this.#child(node, index);
      if (child.itemCount === 0) throw new FormatError('btrfs node', 'items', 0, 'none, below another node');
      yield* this.#below(child, first, last, walk);
    }
  }

  /** The last child whose first key is not above `wanted`; -1 when all are. */
  #childFor(node: Node, wanted: format.Key): number {
    return firstIndex(node.itemCount, (index) => compare(this.#pointer(node, index).key, wanted) > 0) - 1;
  }

  #pointer(node: Node, index: number): { key: format.Key; address: bigint; generation: bigint } {
    const at = format.nodeHeader.sizeBytes + index * format.nodePointer.sizeBytes;
    const pointer = format.nodePointer.parse(node.bytes, at);
    return { ...pointer, key: format.key.parse(pointer.key) };
  }

  #child(node: Node, index: number): Node {
    const { address, generation } = this.#pointer(node, index);
    return this.#node(address, node.level - 1, generation);
  }

  *#leafItems(leaf: Node): Generator<Item> {
    const header = format.nodeHeader.sizeBytes;
    for (let index = 0; index < leaf.itemCount; index++) {
      const item = format.leafItem.parse(leaf.bytes, header + index * format.leafItem.sizeBytes);
      const at = header + item.offset;
      if (at + item.size > leaf.bytes.length || at < header + leaf.itemCount * format.leafItem.sizeBytes)
        throw new FormatError('btrfs leaf', 'item', at, `${item.size} bytes are not inside the leaf`);
      yield { key: format.key.parse(item.key), data: leaf.bytes.subarray(at, at + item.size), leaf, at };
    }
  }

  #node(address: bigint, level: number, generation: bigint): Node {
    const known = this.#nodes.get(address);
    if (known !== undefined && known.level === level) return known;
    const places = this.chunks.placesOf(address, this.nodeBytes, 'btrfs node');
    let failure: unknown;
    for (const place of places) {
      try {
        const node = this.#readNode(place, address, level, generation);
        this.#nodes.set(address, node);
        return node;
      } catch (error) {
        if (!(error instanceof VeneerError) || error.code === 'UNSUPPORTED') throw error;
        failure ??= error;
      }
    }
    throw failure;
  }

  #readNode(place: number, address: bigint, level: number, generation: bigint): Node {
    const bytes = this.reader.read(place, this.nodeBytes, 'node');
    checkBlock(bytes, this.checksum, `btrfs node at byte ${place}`);
    const header = format.nodeHeader.parse(bytes);
    const wrong = (field: string, detail: string): FormatError => new FormatError('btrfs node', field, place, detail);
    if (header.address !== address) throw wrong('address', `is that of the node at ${header.address}`);
    if (header.fsid !== this.#fsid) throw wrong('file system', 'is another');
    if (header.level !== level) throw wrong('level', `${header.level}, where ${level} belongs`);
    if (header.generation !== generation)
      throw wrong('generation', `${header.generation}, where ${generation} belongs`);
    const each = level === 0 ? format.leafItem.sizeBytes : format.nodePointer.sizeBytes;
    if (header.itemCount > Math.floor((this.nodeBytes - format.nodeHeader.sizeBytes) / each))
      throw wrong('items', `${header.itemCount}`);
    return { bytes, address, level, itemCount: header.itemCount };
  }
}

export function compare(a: format.Key, b: format.Key): number {
  if (a.object !== b.object) return a.object < b.object ? -1 : 1;
  if (a.type !== b.type) return a.type - b.type;
  if (a.offset === b.offset) return 0;
  return a.offset < b.offset ? -1 : 1;
}

export const lowestOffset = 0n;
export const highestOffset = 2n ** 64n - 1n;
