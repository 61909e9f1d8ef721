/**
 * As which format a file is read: its name and its content must agree, or somebody must say it.
 *
 * Whoever can write a raw disk can make it look like a qcow2 file that names any file of the folder as its backing file, so a content that the
 * name does not tell is followed nowhere: it is refused in one line, with both ways to insist. A name that claims what the content is not is
 * refused as well: the bytes of an unknown container are no disk.
 */
import { UnsupportedError, UsageError } from '../base/errors.ts';
import type { Disk } from '../disk/disk.ts';
import { formatOfName, type FormatName } from '../native/formats.ts';
import { probe, type Content } from './probe.ts';

/** How one insists: for each format, what to do so that the file is read as it. */
export type Insist = (format: FormatName) => string;

export const insistByOption: Insist = (format) => `--source-format ${format}`;

/** @throws UsageError, UnsupportedError that name what the file looks like, and how to insist */
export function formatOf(file: Disk, filePath: string, insist: Insist): FormatName {
  const named = formatOfName(filePath);
  const contents = probe(file);
  const [found] = contents;
  if (named === undefined || named === 'raw') {
    if (found === undefined) return 'raw';
    if (found.format === undefined) throw notRead(filePath, found, insist);
    throw new UsageError(
      `${filePath}: is ${found.what} by its content, which its name does not say; if it is one: ${insist(found.format)}; if its bytes are the disk itself: ${insist('raw')}`,
    );
  }
  if (contents.some(({ format }) => format === named)) return named;
  if (found !== undefined && found.format === undefined) throw notRead(filePath, found, insist);
  const ways = found?.format === undefined ? '' : `if it is one: ${insist(found.format)}; `;
  const hint = named === 'vmdk' && found === undefined ? 'of a flat VMDK, give the small file that describes it; ' : '';
  throw new UsageError(
    `${filePath}: is called a ${named} file, and by its content is ${found?.what ?? 'none, nor any other disk file that is known'}; ${hint}${ways}if its bytes are the disk itself: ${insist('raw')}`,
  );
}

function notRead(filePath: string, { what, instead, isOurs }: Content, insist: Insist): UnsupportedError {
  const way = isOurs === true ? '' : `; if its bytes are the disk itself: ${insist('raw')}`;
  return new UnsupportedError(`${filePath}: is ${what}, which is not read as a disk; ${instead ?? ''}${way}`);
}
