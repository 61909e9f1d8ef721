/**
 * As which format a file is read: its name and its content must agree, or somebody must say it.
 *
 * Whoever can write a raw disk can make it look like a qcow2 file that names any file of the folder as its backing file, so a content that the
 * name does not tell is followed nowhere: it is refused in one line, with both ways to insist. A name that claims what the content is not is
 * refused as well: the bytes of an unknown container are no disk.
 */
import path from 'node:path';
import { UnsupportedError, UsageError } from '../base/errors.ts';
import type { Disk } from '../disk/disk.ts';
import { rawReader } from '../native/raw/read.ts';
import type { DiskReader } from '../native/reader.ts';
import { sourceFormats } from './formats.ts';
import { probe, type Content } from './probe.ts';

/** How one insists: for each format, what to do so that the file is read as it. */
export type Insist = (format: DiskReader) => string;

export const insistByOption: Insist = ({ name }) => `--source-format ${name}`;

/** @throws UsageError, UnsupportedError that name what the file looks like, and how to insist */
export function formatOf(file: Disk, filePath: string, insist: Insist): DiskReader {
  const named = sourceFormats.find((format) => format.isNamed(path.basename(filePath)));
  const contents = probe(file);
  const [found] = contents;
  if (named === undefined || named.isBare === true) {
    const bare = named ?? rawReader;
    if (found === undefined) return bare;
    if (found.format === undefined) throw notRead(filePath, found, insist(bare));
    throw new UsageError(
      `${filePath}: is ${found.what} by its content, which its name does not say; if it is one: ${insist(found.format)}; if its bytes are the disk itself: ${insist(bare)}`,
    );
  }
  if (contents.some(({ format }) => format === named)) return named;
  if (found !== undefined && found.format === undefined) throw notRead(filePath, found, insist(rawReader));
  const ways = found?.format === undefined ? '' : `if it is one: ${insist(found.format)}; `;
  const hint =
    named.describes === undefined || found !== undefined
      ? ''
      : 'of a disk of several files, give the small file that describes it; ';
  throw new UsageError(
    `${filePath}: is called a ${named.name} file, and by its content is ${found?.what ?? 'none, nor any other disk file that is known'}; ${hint}${ways}if its bytes are the disk itself: ${insist(rawReader)}`,
  );
}

function notRead(filePath: string, { what, instead, isOurs }: Content, insistedOn: string): UnsupportedError {
  const way = isOurs === true ? '' : `; if its bytes are the disk itself: ${insistedOn}`;
  return new UnsupportedError(`${filePath}: is ${what}, which is not read as a disk; ${instead ?? ''}${way}`);
}
