/** Lists of subkeys: leaves, and index roots over them. Never deeper than that, and never more entries than their key says. */
import { viewOf } from '../../../bytes/view.ts';
import { type Key } from './hive.ts';
import { noCell } from './layout.ts';

/** A leaf of a list of subkeys: where its entries stand and how far they lie apart. */
export interface SubkeyLeaf {
  readonly cell: number;
  readonly kind: 'lf' | 'lh' | 'li';
  readonly count: number;
  readonly strideBytes: number;
}

/** The leaves of a key's list, in order; `root` is the cell of the index root where there is one. */
export function subkeyLeaves(key: Key): { readonly root: number | undefined; readonly leaves: SubkeyLeaf[] } {
  const { subkeyCount, subkeyList } = key.node;
  if (subkeyCount === 0 || subkeyList === noCell) return { root: undefined, leaves: [] };
  const list = key.hive.cell(subkeyList);
  if (Buffer.from(list.subarray(0, 2)).toString('latin1') !== 'ri')
    return { root: undefined, leaves: [leafAt(key, subkeyList, subkeyCount)] };
  const view = viewOf(list);
  const count = view.getUint16(2, true);
  if (4 + count * 4 > list.length) throw key.hive.wrong('index root', subkeyList, `${count} leaves do not fit it`);
  const leaves: SubkeyLeaf[] = [];
  let rest = subkeyCount;
  for (let index = 0; index < count; index++) {
    const leaf = leafAt(key, view.getUint32(4 + index * 4, true), rest);
    leaves.push(leaf);
    rest -= leaf.count;
  }
  return { root: subkeyList, leaves };
}

function leafAt(key: Key, cell: number, limit: number): SubkeyLeaf {
  const bytes = key.hive.cell(cell);
  const kind = Buffer.from(bytes.subarray(0, 2)).toString('latin1');
  if (kind !== 'lf' && kind !== 'lh' && kind !== 'li')
    throw key.hive.wrong('subkey list', cell, 'is no list of subkeys');
  const count = viewOf(bytes).getUint16(2, true);
  const strideBytes = kind === 'li' ? 4 : 8;
  if (4 + count * strideBytes > bytes.length)
    throw key.hive.wrong('subkey list', cell, `${count} subkeys do not fit it`);
  if (count > limit) throw key.hive.wrong('subkey list', cell, `${count} subkeys where the key has ${limit} left`);
  return { cell, kind, count, strideBytes };
}

/** The cells of a key's subkeys, in order. */
export function* subkeyCells(key: Key): Generator<number> {
  for (const leaf of subkeyLeaves(key).leaves) {
    const view = viewOf(key.hive.cell(leaf.cell));
    for (let index = 0; index < leaf.count; index++) yield view.getUint32(4 + index * leaf.strideBytes, true);
  }
}
