/**
 * A new subkey's place in its parent's list, which is sorted by upper-case names.
 *
 * In order of preference: the slack of the leaf; a free cell for a longer leaf; the leaf in two, under an index root, where only small
 * cells are free (the Services key of Windows has a leaf of several KiB).
 */
import { viewOf } from '../../../bytes/view.ts';
import { type Key } from './hive.ts';
import { subkeyLeaves, type SubkeyLeaf } from './subkeys.ts';
import type { Cells } from './cells.ts';
import { keyNode, noCell } from './layout.ts';

/** How many subkeys a leaf gives away when it is split. */
const givenAway = 8;
/** Windows makes no longer leaves. */
const maxLeaf = 1012;

export function insertSubkey(cells: Cells, parent: Key, name: string, cell: number): void {
  const node = viewOf(cells.contents(parent.cell));
  const { root, leaves } = subkeyLeaves(parent);
  const setList = (list: number): void => node.setUint32(keyNode.offsetOf('subkeyList'), list, true);
  if (leaves.length === 0) {
    const kind = parent.hive.base.minorVersion >= 5 ? 'lh' : 'lf';
    setList(makeLeaf(cells, kind, [entryOf(kind, name, cell)]));
  } else {
    const place = placeOf(parent, leaves, name);
    const entries = entriesOf(cells, place.leaf);
    entries.splice(place.at, 0, entryOf(place.leaf.kind, name, cell));
    const replacing = replaceLeaf(cells, place.leaf, entries);
    if (root !== undefined) replaceInRoot(cells, root, leaves.indexOf(place.leaf), replacing, setList);
    else if (replacing.length === 1) setList(replacing[0] ?? noCell);
    else setList(makeRoot(cells, replacing));
  }
  node.setUint32(keyNode.offsetOf('subkeyCount'), parent.node.subkeyCount + 1, true);
}

function placeOf(parent: Key, leaves: readonly SubkeyLeaf[], name: string): { leaf: SubkeyLeaf; at: number } {
  const wanted = name.toUpperCase();
  let last: { leaf: SubkeyLeaf; at: number } | undefined;
  for (const leaf of leaves) {
    const view = viewOf(parent.hive.cell(leaf.cell));
    for (let at = 0; at < leaf.count; at++) {
      const other = parent.hive.keyAt(view.getUint32(4 + at * leaf.strideBytes, true)).name.toUpperCase();
      if (other > wanted) return { leaf, at };
    }
    last = { leaf, at: leaf.count };
  }
  if (last === undefined) throw parent.hive.wrong('subkey list', parent.node.subkeyList, 'has no leaves');
  return last;
}

/** The cells that stand for a leaf from now on: itself, a longer one, or two. */
function replaceLeaf(cells: Cells, leaf: SubkeyLeaf, entries: readonly Uint8Array[]): number[] {
  if (4 + entries.length * leaf.strideBytes <= cells.contents(leaf.cell).length && entries.length <= maxLeaf) {
    writeLeaf(cells, leaf.cell, leaf.kind, entries);
    return [leaf.cell];
  }
  const longer = entries.length <= maxLeaf ? cells.allocateFromFree(4 + entries.length * leaf.strideBytes) : undefined;
  if (longer !== undefined) {
    writeLeaf(cells, longer, leaf.kind, entries);
    cells.release(leaf.cell);
    return [longer];
  }
  const kept = entries.length - Math.min(givenAway, Math.floor(entries.length / 2));
  const second = makeLeaf(cells, leaf.kind, entries.slice(kept));
  writeLeaf(cells, leaf.cell, leaf.kind, entries.slice(0, kept));
  return [leaf.cell, second];
}

function replaceInRoot(
  cells: Cells,
  root: number,
  index: number,
  replacing: readonly number[],
  setList: (list: number) => void,
): void {
  const old = viewOf(cells.contents(root));
  const lists = Array.from({ length: old.getUint16(2, true) }, (_, at) => old.getUint32(4 + at * 4, true));
  lists.splice(index, 1, ...replacing);
  if (4 + lists.length * 4 <= old.byteLength) {
    writeRoot(cells, root, lists);
    return;
  }
  setList(makeRoot(cells, lists));
  cells.release(root);
}

function makeRoot(cells: Cells, lists: readonly number[]): number {
  const cell = cells.allocate(4 + lists.length * 4);
  writeRoot(cells, cell, lists);
  return cell;
}

function writeRoot(cells: Cells, cell: number, lists: readonly number[]): void {
  const view = begin(cells, cell, 'ri', lists.length);
  for (const [at, list] of lists.entries()) view.setUint32(4 + at * 4, list, true);
}

function makeLeaf(cells: Cells, kind: SubkeyLeaf['kind'], entries: readonly Uint8Array[]): number {
  const cell = cells.allocate(4 + entries.reduce((sum, entry) => sum + entry.length, 0));
  writeLeaf(cells, cell, kind, entries);
  return cell;
}

function writeLeaf(cells: Cells, cell: number, kind: SubkeyLeaf['kind'], entries: readonly Uint8Array[]): void {
  begin(cells, cell, kind, entries.length);
  const contents = cells.contents(cell);
  let at = 4;
  for (const entry of entries) {
    contents.set(entry, at);
    at += entry.length;
  }
}

function begin(cells: Cells, cell: number, signature: string, count: number): DataView {
  const contents = cells.contents(cell);
  contents.set(Buffer.from(signature, 'latin1'));
  const view = viewOf(contents);
  view.setUint16(2, count, true);
  return view;
}

function entriesOf(cells: Cells, leaf: SubkeyLeaf): Uint8Array[] {
  const contents = cells.contents(leaf.cell);
  return Array.from({ length: leaf.count }, (_, at) =>
    contents.slice(4 + at * leaf.strideBytes, 4 + (at + 1) * leaf.strideBytes),
  );
}

function entryOf(kind: SubkeyLeaf['kind'], name: string, cell: number): Uint8Array {
  const entry = new Uint8Array(kind === 'li' ? 4 : 8);
  viewOf(entry).setUint32(0, cell, true);
  if (kind === 'lf') entry.set(Buffer.from(name.slice(0, 4), 'latin1'), 4);
  if (kind === 'lh') viewOf(entry).setUint32(4, hashOf(name), true);
  return entry;
}

/** The hash of a hash leaf: 37 times what was, plus the upper-case character. */
function hashOf(name: string): number {
  let hash = 0;
  for (const character of name.toUpperCase()) hash = (Math.imul(hash, 37) + character.charCodeAt(0)) >>> 0;
  return hash;
}
