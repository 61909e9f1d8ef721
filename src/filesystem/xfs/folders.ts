/**
 * Folders in all their forms: inside the inode, one block that is all, or blocks of entries with an index behind them (leaf, node, tree).
 * The index is not needed: entries are read from end to end.
 */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { nameOfBytes } from '../../base/names.ts';
import { alignUp } from '../../base/ranges.ts';
import { MiB } from '../../base/units.ts';
import type { FolderEntry } from '../file-system.ts';
import { runsOf, type BlockRun } from './extents.ts';
import { checkCrc, type Inode, type Xfs } from './inodes.ts';
import * as format from './layout.ts';

const maxFolderBytes = 128 * MiB;

export function* entriesOf(fs: Xfs, folder: Inode): Generator<FolderEntry> {
  if (folder.format === format.forkFormats.local) yield* shortEntries(fs, folder);
  else yield* blockEntries(fs, folder);
}

/** count, how many need 8 bytes for their inode, the folder above; then entries. */
function* shortEntries(fs: Xfs, { fork, number, sizeBytes }: Inode): Generator<FolderEntry> {
  const length = Math.min(sizeBytes, fork.length);
  const wrong = (at: number): FormatError =>
    new FormatError(`XFS folder ${number}`, 'entry', at, `is not inside ${length} bytes`);
  const view = new DataView(fork.buffer, fork.byteOffset, fork.byteLength);
  if (length < 6) throw wrong(0);
  const wide = view.getUint8(1) > 0;
  const count = wide ? view.getUint8(1) : view.getUint8(0);
  let at = 2 + (wide ? 8 : 4);
  for (let index = 0; index < count; index++) {
    if (at + 3 > length) throw wrong(at);
    const nameLength = view.getUint8(at);
    const inodeAt = at + 3 + nameLength + (fs.fileTypes ? 1 : 0);
    const next = inodeAt + (wide ? 8 : 4);
    if (next > length) throw wrong(at);
    const node = wide ? view.getBigUint64(inodeAt) : BigInt(view.getUint32(inodeAt));
    yield { name: nameOfBytes(fork.subarray(at + 3, at + 3 + nameLength)), node };
    at = next;
  }
}

function* blockEntries(fs: Xfs, folder: Inode): Generator<FolderEntry> {
  const folderBlockBytes = fs.blockBytes * 2 ** fs.super.folderBlockLog;
  const perFolderBlock = 2 ** fs.super.folderBlockLog;
  const indexBlock = format.folderIndexOffset / fs.blockBytes;
  const blocks: (BlockRun & { readonly single: true })[] = [];
  for (const run of runsOf(fs, folder)) {
    if (run.file >= indexBlock) break;
    if ((blocks.length + run.count) * fs.blockBytes > maxFolderBytes)
      throw new UnsupportedError(`XFS: folder ${folder.number} has more than ${maxFolderBytes} bytes; it is not read`);
    for (let index = 0; index < run.count; index++)
      blocks.push({ file: run.file + index, offset: run.offset + index * fs.blockBytes, count: 1, single: true });
  }
  for (let index = 0; index < blocks.length; index += perFolderBlock) {
    const parts = blocks.slice(index, index + perFolderBlock);
    const first = parts[0]?.file ?? 0;
    const whole = first % perFolderBlock === 0 && parts.length === perFolderBlock;
    if (!whole || parts.some((part, place) => part.file !== first + place))
      throw new FormatError(`XFS folder ${folder.number}`, 'blocks', first, 'have a hole');
    const block = new Uint8Array(folderBlockBytes);
    for (const [place, { offset }] of parts.entries())
      block.set(fs.reader.read(offset, fs.blockBytes, `folder ${folder.number}`), place * fs.blockBytes);
    yield* entriesIn(fs, block, folder.number);
  }
}

function* entriesIn(fs: Xfs, block: Uint8Array, folder: number): Generator<FolderEntry> {
  const isNew = fs.version === 5;
  const magic = Buffer.from(block.subarray(0, 4)).toString('latin1');
  const [alone, oneOfMany] = isNew ? format.folderMagics.version5 : format.folderMagics.version4;
  const wrong = (field: string, at: number): FormatError =>
    new FormatError(`XFS folder ${folder}`, field, at, 'is wrong');
  if (magic !== alone && magic !== oneOfMany) throw wrong('magic', 0);
  if (isNew) checkCrc(block, format.folderBlockCrcOffset, `XFS folder ${folder}`);
  const view = new DataView(block.buffer);
  const end = magic === alone ? endOfEntries(block) : block.length;
  let at: number = isNew ? format.folderBlockBytes.version5 : format.folderBlockBytes.version4;
  if (end < at) throw wrong('tail', end);
  while (at < end) {
    if (at + 8 > end) throw wrong('entry', at);
    if (view.getUint16(at) === format.freeTag) {
      const length = view.getUint16(at + 2);
      if (length < 8 || length % 8 !== 0) throw wrong('free space', at);
      at += length;
      continue;
    }
    if (at + 9 > end) throw wrong('entry', at);
    const nameLength = view.getUint8(at + 8);
    const next = at + alignUp(8 + 1 + nameLength + (fs.fileTypes ? 1 : 0) + 2, 8);
    if (nameLength === 0 || next > end) throw wrong('entry', at);
    const name = nameOfBytes(block.subarray(at + 9, at + 9 + nameLength));
    if (name !== '.' && name !== '..') yield { name, node: view.getBigUint64(at) };
    at = next;
  }
}

/** Where the index of a folder that is one block begins. */
function endOfEntries(block: Uint8Array): number {
  const tailAt = block.length - format.folderTail.sizeBytes;
  return tailAt - format.folderTail.parse(block, tailAt).count * 8;
}
