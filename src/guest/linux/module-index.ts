/**
 * The indexes by which modprobe finds modules: as text (busybox reads that) and as kmod's tries (kmod reads nothing else). Written anew for
 * the modules that an initramfs has, since those of the guest name files that may be compressed there and not here.
 *
 * A trie is big-endian: magic, version, offset of the root; nodes before what points to them. A node's offset carries in its upper bits what
 * it has: a prefix, children for a range of characters, values (kmod, libkmod/libkmod-index.c).
 */

const magic = 0xb007f457;
const version = 0x00020001;
const hasPrefix = 0x80000000;
const hasValues = 0x40000000;
const hasChildren = 0x20000000;

/** A module's name as modprobe compares it: `virtio-pci.ko.xz` -> `virtio_pci`. */
export function moduleName(file: string): string {
  return file
    .replace(/^.*\//, '')
    .replace(/\.ko(\.(gz|xz|zst))?$/, '')
    .replaceAll('-', '_');
}

export interface IndexedModule {
  readonly name: string;
  /** From the folder of the version: `kernel/drivers/block/virtio_blk.ko`. */
  readonly file: string;
  /** All that must be loaded before, as files. */
  readonly needs: readonly string[];
}

/** The files modules.dep, modules.alias and their tries. @param aliases pattern and module, of a guest's modules.alias */
export function writeIndexes(
  modules: readonly IndexedModule[],
  aliases: readonly (readonly [string, string])[],
): ReadonlyMap<string, Uint8Array> {
  const lines = modules.map(({ name, file, needs }) => [name, [`${file}:`, ...needs].join(' ')] as const);
  const known = new Set(modules.map(({ name }) => name));
  const kept = aliases.filter(([, name]) => known.has(name));
  return new Map([
    ['modules.dep', Buffer.from(lines.map(([, line]) => `${line}\n`).join(''), 'latin1')],
    ['modules.dep.bin', writeTrie(lines)],
    ['modules.alias', Buffer.from(kept.map(([pattern, name]) => `alias ${pattern} ${name}\n`).join(''), 'latin1')],
    ['modules.alias.bin', writeTrie(kept.map(([pattern, name]) => [withUnderscores(pattern), name]))],
  ]);
}

/** As kmod compares them; not inside brackets. */
function withUnderscores(pattern: string): string {
  return pattern.replaceAll(/\[[^\]]*\]|-/g, (part) => (part === '-' ? '_' : part));
}

interface Value {
  readonly key: string;
  readonly value: string;
  readonly priority: number;
}

function writeTrie(entries: readonly (readonly [string, string])[]): Uint8Array {
  const values = entries.map(([key, value], priority) => ({ key, value, priority }));
  const parts: Buffer[] = [Buffer.alloc(12)];
  let length = 12;
  const put = (part: Buffer): void => {
    parts.push(part);
    length += part.length;
  };

  /** Writes what is below and then the node itself; returns where, with what it has. */
  function writeNode(inside: readonly Value[], depth: number): number {
    const prefix = commonPrefix(inside, depth);
    const at = depth + prefix.length;
    const own = inside.filter(({ key }) => key.length === at);
    const children = new Map<number, Value[]>();
    for (const value of inside) {
      if (value.key.length === at) continue;
      const character = value.key.charCodeAt(at);
      const below = children.get(character);
      if (below === undefined) children.set(character, [value]);
      else below.push(value);
    }
    const offsets = new Map([...children].map(([character, below]) => [character, writeNode(below, at + 1)]));
    const offset = length;
    if (prefix !== '') put(Buffer.from(`${prefix}\0`, 'latin1'));
    if (offsets.size > 0) put(childTable(offsets));
    if (own.length > 0) put(valueList(own));
    return (
      offset +
      (prefix === '' ? 0 : hasPrefix) +
      (offsets.size === 0 ? 0 : hasChildren) +
      (own.length === 0 ? 0 : hasValues)
    );
  }

  const root = writeNode(values, 0);
  const whole = Buffer.concat(parts);
  whole.writeUInt32BE(magic, 0);
  whole.writeUInt32BE(version, 4);
  whole.writeUInt32BE(root, 8);
  return whole;
}

function commonPrefix(values: readonly Value[], depth: number): string {
  const [first] = values;
  if (first === undefined) return '';
  let end = first.key.length;
  for (const { key } of values) {
    let same = depth;
    while (same < end && same < key.length && key.charCodeAt(same) === first.key.charCodeAt(same)) same++;
    end = same;
  }
  return first.key.slice(depth, end);
}

function childTable(offsets: ReadonlyMap<number, number>): Buffer {
  const first = Math.min(...offsets.keys());
  const last = Math.max(...offsets.keys());
  const table = Buffer.alloc(2 + (last - first + 1) * 4);
  table[0] = first;
  table[1] = last;
  for (const [character, offset] of offsets) table.writeUInt32BE(offset, 2 + (character - first) * 4);
  return table;
}

function valueList(values: readonly Value[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(values.length);
  const items = values.map(({ value, priority }) => {
    const item = Buffer.alloc(4 + value.length + 1);
    item.writeUInt32BE(priority);
    item.write(value, 4, 'latin1');
    return item;
  });
  return Buffer.concat([count, ...items]);
}
