/**
 * What a file of Veneer's own is, by its first bytes and never by its name: the one answer to that. Whether it is a sound one is another question
 * (backup/read/image.ts, plugin/plugin-file.ts); what a file of somebody else's is, probe.ts tells.
 */
import * as fs from '../base/fs.ts';
import { openRegular } from '../base/regular-file.ts';
import { startsAsImage } from '../backup/format/image-description.ts';

export type OwnContent = 'image' | 'plugin file';

/** As many bytes as tell it. */
export const markBytes = 64;
/** The first key of every plugin file, but for white space; within its first bytes. */
const pluginMark = '{"veneer":"pluginfile"';

/** @param firstBytes as many as there are, up to `markBytes`; more do no harm */
export function ownContent(firstBytes: Uint8Array): OwnContent | undefined {
  if (startsAsImage(firstBytes)) return 'image';
  const text = Buffer.from(firstBytes.subarray(0, markBytes)).toString('latin1');
  return text.replaceAll(/\s+/g, '').startsWith(pluginMark) ? 'plugin file' : undefined;
}

/** Of an open file. */
export function ownContentIn(fd: number): OwnContent | undefined {
  const first = new Uint8Array(markBytes);
  return ownContent(first.subarray(0, fs.readSync(fd, first, 0, first.length, 0)));
}

/** A link is followed. @throws ForbiddenError for what is no regular file; the system's error */
export function ownContentAt(file: string): OwnContent | undefined {
  const fd = openRegular(fs.realpathSync(file), fs.constants.O_RDONLY, file);
  try {
    return ownContentIn(fd);
  } finally {
    fs.closeSync(fd);
  }
}
