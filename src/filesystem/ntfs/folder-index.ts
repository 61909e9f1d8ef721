/**
 * A name put into a folder's B-tree, at its place in the order.
 *
 * A node without room is split: its lower half becomes a block of its own, and its middle entry goes up to the parent, in front of the
 * entry that led to the node. A root without room gives its entries to a block and keeps one entry that leads there. New blocks are those
 * that the folder's bitmap calls free, or lie in clusters that the folder gets for them. A folder that cannot take
 * the name is refused.
 */
import { FormatError, UnsupportedError, UsageError } from '../../base/errors.ts';
import { FolderBlocks } from './folder-blocks.ts';
import { indexName } from './folders.ts';
import { bytesOfEntries, encodeEntries, type IndexEntry } from './index-node.ts';
import { attributeTypes, indexHeader, indexRootHead } from './layout.ts';
import { withSizes, type Sizes } from './new-record.ts';
import type { EditedRecord } from './record-edit.ts';
import type { NtfsWriter } from './writer.ts';

const largeIndexFlag = 1;

/** A node on the way down; undefined block: the root. */
interface Node {
  readonly block: number | undefined;
  entries: IndexEntry[];
  /** Where the next lower node, or the new name, belongs. */
  readonly at: number;
}

export class FolderIndex {
  readonly #writer: NtfsWriter;
  readonly #folder: number;
  readonly #record: EditedRecord;
  readonly #blocks: FolderBlocks;
  readonly #rootHead: Uint8Array;
  readonly #changed = new Map<number, readonly IndexEntry[]>();

  /** @throws UnsupportedError when the folder's attributes lie in several records */
  constructor(writer: NtfsWriter, folder: number) {
    this.#writer = writer;
    this.#folder = folder;
    this.#record = writer.edit(folder);
    this.#blocks = new FolderBlocks(writer, folder, this.#record);
    const root = writer.need(folder, attributeTypes.indexRoot, indexName).value ?? new Uint8Array(0);
    const head = indexRootHead.parse(root);
    if (head.type !== attributeTypes.fileName || head.blockBytes !== writer.geometry.indexBlockBytes)
      throw new FormatError(
        `NTFS file record ${folder}`,
        'index root',
        0,
        `is of type ${head.type} with blocks of ${head.blockBytes} bytes`,
      );
    this.#rootHead = root.slice(0, indexRootHead.sizeBytes);
  }

  /** @returns what changed, for people. @throws UnsupportedError when the folder cannot take it; UsageError when the name is there */
  insert(name: string, key: Uint8Array, reference: bigint): string {
    const steps = this.#writer.folders.descend(this.#folder, name);
    if (steps.at(-1)?.found === true) throw new UsageError(`NTFS: the folder has a ${name}`);
    const path = steps.map(({ block, entries, at }): Node => ({ block, entries: [...entries], at }));
    const leaf = path.at(-1);
    this.#put(path, { name, key, namespace: 0, record: 0, reference, child: undefined });
    this.#write();
    return leaf?.block === undefined ? 'the index root' : `index block ${leaf.block}`;
  }

  /** Has the name's entry say other sizes of its file, as Windows lists them. @throws UsageError where the name is missing */
  resize(name: string, sizes: Sizes): void {
    const step = this.#writer.folders.descend(this.#folder, name).at(-1);
    const entry = step?.entries[step.at];
    if (step?.found !== true || entry === undefined) throw new UsageError(`NTFS: the folder has no ${name}`);
    const entries = [...step.entries];
    entries[step.at] = { ...entry, key: withSizes(entry.key, sizes) };
    if (step.block === undefined) this.#setRoot(entries);
    else this.#changed.set(step.block, entries);
    this.#write();
  }

  /** Puts an entry into the last node of the path, splitting upwards as far as it must. */
  #put(path: readonly Node[], entry: IndexEntry): void {
    const node = path.at(-1);
    if (node === undefined) throw new FormatError(`NTFS file record ${this.#folder}`, 'index', 0, 'has no root');
    node.entries.splice(node.at, 0, entry);
    if (node.block === undefined) {
      this.#putRoot(node.entries);
    } else if (bytesOfEntries(node.entries) <= this.#blocks.roomBytes) {
      this.#changed.set(node.block, node.entries);
    } else {
      const { lower, middle, upper } = halve(node.entries, this.#folder);
      const block = this.#blocks.take();
      this.#changed.set(block, [...lower, lastEntry(middle.child)]);
      this.#changed.set(node.block, upper);
      this.#put(path.slice(0, -1), { ...middle, child: block });
    }
  }

  #putRoot(entries: readonly IndexEntry[]): void {
    this.#setRoot(entries);
    if (this.#record.excessBytes <= 0) return;
    if (bytesOfEntries(entries) > this.#blocks.roomBytes)
      throw new UnsupportedError(`NTFS file record ${this.#folder}: the root of its index does not fit a block`);
    const block = this.#blocks.take();
    this.#changed.set(block, entries);
    this.#setRoot([lastEntry(block)]);
  }

  #setRoot(entries: readonly IndexEntry[]): void {
    const bytes = encodeEntries(entries);
    const value = new Uint8Array(indexRootHead.sizeBytes + indexHeader.sizeBytes + bytes.length);
    value.set(this.#rootHead);
    const usedBytes = indexHeader.sizeBytes + bytes.length;
    const flags = entries.some(({ child }) => child !== undefined) ? largeIndexFlag : 0;
    const header = { entriesOffset: indexHeader.sizeBytes, usedBytes, allocatedBytes: usedBytes, flags };
    indexHeader.encode(header, value, indexRootHead.sizeBytes);
    value.set(bytes, indexRootHead.sizeBytes + indexHeader.sizeBytes);
    this.#record.setValue(attributeTypes.indexRoot, indexName, value);
  }

  #write(): void {
    this.#writer.putRecord(this.#folder, this.#record.encode());
    for (const [block, entries] of this.#changed) this.#blocks.write(block, entries);
  }
}

/** The entry that ends a node; undefined child: of a leaf. */
function lastEntry(child: number | undefined): IndexEntry {
  return { name: undefined, key: new Uint8Array(0), namespace: 0, record: 0, reference: 0n, child };
}

/** A node in two, by bytes, and the entry between them. */
function halve(
  entries: readonly IndexEntry[],
  folder: number,
): { lower: readonly IndexEntry[]; middle: IndexEntry; upper: readonly IndexEntry[] } {
  const half = bytesOfEntries(entries) / 2;
  let at = 0;
  for (let bytes = 0; at < entries.length; at++) {
    bytes += bytesOfEntries(entries.slice(at, at + 1));
    if (bytes >= half) break;
  }
  const middle = entries[at];
  // A name on each side of the middle one, and the entry that ends the node.
  if (middle === undefined || at < 1 || at > entries.length - 3)
    throw new UnsupportedError(`NTFS file record ${folder}: a block of its index has too few names to be split`);
  return { lower: entries.slice(0, at), middle, upper: entries.slice(at + 1) };
}
