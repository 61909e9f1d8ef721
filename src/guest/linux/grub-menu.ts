/**
 * A guest's own grub.cfg: the entry that it boots by default, and where its lines lie in the text, which is latin1 (a character is a byte).
 * GRUB's language is not run: the first entry, or the one that `set default="N"` names by a number, is taken.
 */

export interface MenuLine {
  /** Of the whole line in the text, without its end. */
  readonly offset: number;
  readonly text: string;
}

export interface MenuEntry {
  readonly linux: MenuLine;
  readonly initrd: MenuLine | undefined;
  /** As in the linux line. */
  readonly kernel: string;
  readonly initrds: readonly string[];
  readonly arguments: string;
  /** Lines that only tell the user what happens. */
  readonly echoes: readonly MenuLine[];
}

const maxEntries = 200;

/** Every entry that boots a Linux, in order. */
export function parseMenu(text: string): MenuEntry[] {
  const entries: MenuEntry[] = [];
  let echoes: MenuLine[] = [];
  let linux: MenuLine | undefined;
  let initrd: MenuLine | undefined;
  const finish = (): void => {
    const entry = linux === undefined ? undefined : entryOf(linux, initrd, echoes);
    if (entry !== undefined && entries.length < maxEntries) entries.push(entry);
    [echoes, linux, initrd] = [[], undefined, undefined];
  };
  let offset = 0;
  for (const line of text.split('\n')) {
    const found = { offset, text: line };
    const command = /^\s*(\S+)/.exec(line)?.[1];
    if (command === 'menuentry') finish();
    else if (command === 'linux' || command === 'linux16' || command === 'linuxefi') {
      if (linux !== undefined) finish();
      linux = found;
    } else if (command === 'initrd' || command === 'initrd16' || command === 'initrdefi') initrd = found;
    else if (command === 'echo') echoes.push(found);
    offset += line.length + 1;
  }
  finish();
  return entries;
}

/** The entry that is booted when nobody chooses. */
export function defaultEntry(text: string, entries: readonly MenuEntry[]): MenuEntry | undefined {
  const number = /^\s*set default="?(\d+)"?\s*$/m.exec(text)?.[1];
  return entries[number === undefined ? 0 : Number(number)] ?? entries[0];
}

function entryOf(linux: MenuLine, initrd: MenuLine | undefined, echoes: readonly MenuLine[]): MenuEntry | undefined {
  const words = linux.text.trim().split(/\s+/);
  const kernel = words[1];
  if (kernel === undefined) return undefined;
  return {
    linux,
    initrd,
    kernel,
    initrds: initrd === undefined ? [] : initrd.text.trim().split(/\s+/).slice(1),
    arguments: words.slice(2).join(' '),
    echoes,
  };
}

/** The version in a kernel's name: `/boot/vmlinuz-6.1.0-13-amd64` -> `6.1.0-13-amd64`. */
export function versionOf(kernel: string): string | undefined {
  return /vmlinu[xz]-([^/]+)$/.exec(kernel)?.[1];
}

/** Newest first, as `sort -V` has it. */
export function byVersion(a: string, b: string): number {
  return b.localeCompare(a, 'en', { numeric: true });
}
