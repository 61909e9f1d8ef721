/** /etc/fstab and /etc/crypttab: what they mount, and their device names for another controller. */
import type { Change } from '../../filesystem/edit/patch.ts';
import { renameDisk, replaceWord, type DiskPrefix, type TextEdit } from './device-names.ts';

export interface FstabEntry {
  readonly device: string;
  readonly mountpoint: string;
  readonly options: string;
}

export interface TableEdits {
  readonly edits: readonly TextEdit[];
  readonly changes: readonly Change[];
  readonly warnings: readonly string[];
}

const maxLines = 10_000;

/** The entries of a fstab; lines that are none are passed over. */
export function parseFstab(text: string): FstabEntry[] {
  return wordsOfLines(text).flatMap(({ words }) => {
    const [device, mountpoint, , options] = words;
    if (device === undefined || mountpoint === undefined) return [];
    return [{ device: device.word, mountpoint: mountpoint.word, options: options?.word ?? '' }];
  });
}

/** @param column of the device: 0 in fstab, 1 in crypttab. @param naming what the disks are called, and on which controllers */
export function renameInTable(
  path: string,
  text: string,
  column: number,
  { prefix, controllers }: { readonly prefix: DiskPrefix; readonly controllers: string },
): TableEdits {
  const edits: TextEdit[] = [];
  const changes: Change[] = [];
  const warnings: string[] = [];
  for (const { line, words } of wordsOfLines(text)) {
    const found = words[column];
    const renamed = found === undefined ? undefined : renameDisk(found.word, prefix);
    if (found === undefined || renamed === undefined || renamed === found.word) continue;
    const where = `${path} line ${line}`;
    const edit = replaceWord(text, found.offset, found.word, renamed);
    if (edit === undefined) {
      warnings.push(`${where}: ${found.word} will be ${renamed}, which does not fit its line; use UUID= there`);
      continue;
    }
    edits.push(edit);
    changes.push({
      what: 'device name',
      where,
      old: found.word,
      new: renamed,
      why: `the disk has this name on ${controllers}`,
    });
  }
  return { edits, changes, warnings };
}

function wordsOfLines(text: string): { line: number; words: { word: string; offset: number }[] }[] {
  const found: { line: number; words: { word: string; offset: number }[] }[] = [];
  let offset = 0;
  for (const [index, line] of text.split('\n', maxLines).entries()) {
    if (!/^\s*#/.test(line)) {
      const words = [...line.matchAll(/\S+/g)].map((match) => ({ word: match[0], offset: offset + match.index }));
      if (words.length > 0) found.push({ line: index + 1, words });
    }
    offset += line.length + 1;
  }
  return found;
}
