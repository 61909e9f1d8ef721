/** What a file claims to be, by its first bytes: an image, a plugin file or neither. */
import * as fs from '../base/fs.ts';
import { openRegular } from '../base/regular-file.ts';
import { startsAsImage } from '../backup/image-description.ts';
import { markerBytes } from '../source/plugin-marker.ts';

/** Whether a file claims to be an image. */
export function isImage(file: string): boolean {
  return startsAsImage(firstBytesOf(file));
}

/** As many as tell a plugin file, and an image. A link is followed. */
export function firstBytesOf(file: string): Uint8Array {
  const fd = openRegular(fs.realpathSync(file), fs.constants.O_RDONLY, file);
  try {
    const first = new Uint8Array(markerBytes);
    return first.subarray(0, fs.readSync(fd, first, 0, first.length, 0));
  } finally {
    fs.closeSync(fd);
  }
}
