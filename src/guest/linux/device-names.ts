/**
 * Names of disks that depend on the controller: /dev/sda1 becomes /dev/vda1 on virtio-blk. Texts that hold them are changed without a
 * change of length: where a name grows, white space behind it must give way.
 */

/** What the kernel calls disks on a controller. */
export type DiskPrefix = 'sd' | 'vd';

const plainName = /^\/dev\/(?:sd|vd|hd|xvd)([a-z])(\d*)$/;
const nvmeName = /^\/dev\/nvme(\d)n1(?:p(\d+))?$/;
const firstLetter = 97;

interface DiskName {
  /** From 0. */
  readonly disk: number;
  readonly partition: string;
}

function parseName(device: string): DiskName | undefined {
  const [, letter, plainPartition = ''] = plainName.exec(device) ?? [];
  if (letter !== undefined) return { disk: letter.charCodeAt(0) - firstLetter, partition: plainPartition };
  const [, number, partition = ''] = nvmeName.exec(device) ?? [];
  return number === undefined ? undefined : { disk: Number(number), partition };
}

/** @returns undefined where the name is none that depends on the controller */
export function renameDisk(device: string, prefix: DiskPrefix): string | undefined {
  const name = parseName(device);
  return name && `/dev/${prefix}${String.fromCharCode(firstLetter + name.disk)}${name.partition}`;
}

/** Whether the name, on whatever controller, is that of this partition of the first disk. */
export function namesPartition(device: string, number: number): boolean {
  const name = parseName(device);
  return name?.disk === 0 && name.partition === String(number);
}

/** Bytes [offset, offset + after.length) of a text become `after`. */
export interface TextEdit {
  readonly offset: number;
  readonly after: Uint8Array;
}

/**
 * The edit that makes the word at `offset` another, or undefined where there is no room. `text` is in latin1: a character is a byte.
 */
export function replaceWord(text: string, offset: number, oldWord: string, newWord: string): TextEdit | undefined {
  const growth = newWord.length - oldWord.length;
  const behind = /^[ \t]*/.exec(text.slice(offset + oldWord.length, offset + oldWord.length + 1024))?.[0] ?? '';
  const next = text[offset + oldWord.length + behind.length];
  const atEnd = next === undefined || next === '\n';
  // One blank must stay between words.
  if (growth > 0 && behind.length < growth + (atEnd ? 0 : 1)) return undefined;
  if (growth < 0 && behind.length === 0 && !atEnd) return undefined;
  const kept = growth > 0 ? behind.slice(growth) : behind;
  const whole = growth === 0 ? newWord : `${newWord}${' '.repeat(Math.max(0, -growth))}${kept}`;
  return { offset, after: Buffer.from(whole, 'latin1') };
}
