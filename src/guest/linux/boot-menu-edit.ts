/**
 * Changes of a guest's own grub.cfg in place, without a change of its length: other device names, a console, one more initrd. Room is made of
 * the entry's `echo` lines, which only tell the user what happens, and of white space.
 */
import type { Change } from '../../filesystem/edit/patch.ts';
import { namesPartition, renameDisk, type DiskPrefix } from './device-names.ts';
import type { MenuEntry, MenuLine } from './grub-menu.ts';
import type { TextEdit } from './device-names.ts';

export interface MenuWishes {
  readonly prefix: DiskPrefix;
  /** The partition with the root, which its UUID names on every controller: with an initramfs, and where there is room. */
  readonly root?: { readonly partition: number; readonly uuid: string } | undefined;
  /** Added to the kernel's arguments. */
  readonly kernelArguments?: string | undefined;
  /** GRUB's name of what is loaded behind the entry's own initrds: `(hd0)1024+500`. */
  readonly extraInitrd?: string | undefined;
}

export interface MenuEdit {
  readonly edits: readonly TextEdit[];
  readonly changes: readonly Change[];
}

/** @returns the reason where the entry has no room for what is wanted */
export function editEntry(path: string, text: string, entry: MenuEntry, wishes: MenuWishes): MenuEdit | string {
  const { root, ...plain } = wishes;
  if (root === undefined || entry.initrd === undefined) return editWith(path, text, entry, plain, entry.linux.text);
  const edit = editWith(path, text, entry, plain, withRootByUuid(entry.linux.text, root));
  return typeof edit === 'string' ? editWith(path, text, entry, plain, entry.linux.text) : edit;
}

function editWith(
  path: string,
  text: string,
  entry: MenuEntry,
  wishes: Omit<MenuWishes, 'root'>,
  line: string,
): MenuEdit | string {
  const linux =
    renameInLine(line, wishes.prefix) + (wishes.kernelArguments === undefined ? '' : ` ${wishes.kernelArguments}`);
  if (wishes.extraInitrd !== undefined && entry.initrd === undefined)
    return 'its entry loads no initramfs, behind which another could be loaded';
  const initrd =
    entry.initrd === undefined
      ? undefined
      : `${entry.initrd.text}${wishes.extraInitrd === undefined ? '' : ` ${wishes.extraInitrd}`}`;
  const wanted = new Map<MenuLine, string>([[entry.linux, linux]]);
  if (entry.initrd !== undefined && initrd !== undefined) wanted.set(entry.initrd, initrd);
  const changed = [...wanted].filter(([line, after]) => line.text !== after);
  if (changed.length === 0) return { edits: [], changes: [] };
  const rewritten = rewrite(text, entry, wanted);
  if (rewritten === undefined)
    return `its entry has no room for ${changed.map(([, after]) => `"${after.trim().slice(0, 80)}"`).join(' and ')}`;
  const changes = changed.map(([line, after]) => ({
    what: line === entry.initrd ? 'initramfs' : 'kernel line',
    where: `${path} line ${text.slice(0, line.offset).split('\n').length}`,
    old: line.text.trim(),
    new: after.trim(),
    why:
      line === entry.initrd
        ? "drivers for the new controller are loaded besides the guest's own initramfs"
        : 'the disk has another name there, or a console is wanted',
  }));
  return { edits: [rewritten], changes };
}

/** From the entry's first line of interest to its last, with the same number of characters; echo lines are dropped for room. */
function rewrite(text: string, entry: MenuEntry, wanted: ReadonlyMap<MenuLine, string>): TextEdit | undefined {
  const lines = [entry.linux, ...(entry.initrd === undefined ? [] : [entry.initrd]), ...entry.echoes].sort(
    (a, b) => a.offset - b.offset,
  );
  const [first] = lines;
  const last = lines.at(-1);
  if (first === undefined || last === undefined) return undefined;
  const end = last.offset + last.text.length;
  const before = text.slice(first.offset, end);
  const offsets = new Map(lines.map((line) => [line.offset - first.offset, line]));
  const pieces: { text: string; echo: boolean }[] = [];
  let at = 0;
  for (const line of before.split('\n')) {
    const known = offsets.get(at);
    pieces.push({
      text: (known === undefined ? undefined : wanted.get(known)) ?? line,
      echo: known !== undefined && entry.echoes.includes(known),
    });
    at += line.length + 1;
  }
  let length = pieces.reduce((sum, piece) => sum + piece.text.length + 1, -1);
  while (length > before.length) {
    const drop = pieces.findIndex(({ echo }) => echo);
    const piece = pieces[drop];
    if (piece === undefined) return undefined;
    length -= piece.text.length + 1;
    pieces.splice(drop, 1);
  }
  const after = pieces.map((piece) => piece.text).join('\n') + ' '.repeat(before.length - length);
  return { offset: first.offset, after: Buffer.from(after, 'latin1') };
}

function withRootByUuid(line: string, { partition, uuid }: NonNullable<MenuWishes['root']>): string {
  return line.replaceAll(/(?<=\sroot=)\/dev\/[a-z0-9]+/g, (device) =>
    namesPartition(device, partition) ? `UUID=${uuid}` : device,
  );
}

/** `root=/dev/sda1` and `resume=/dev/sda5`. */
export function renameInLine(line: string, prefix: DiskPrefix): string {
  return line.replaceAll(/(?<=[=\s"'])\/dev\/[a-z0-9]+/g, (device) => renameDisk(device, prefix) ?? device);
}
