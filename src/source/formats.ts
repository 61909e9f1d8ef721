/** Everything that images are made from: what native formats are read, and what is none. A folder and a line here is all that a further one takes. */
import type { DiskReader } from '../native/reader.ts';
import { nativeReaders } from '../native/readers.ts';
import { splitReader } from './split/read.ts';

export const sourceFormats: readonly DiskReader[] = [...nativeReaders, splitReader];
export const sourceFormatNames = sourceFormats.map(({ name }) => name);

export function sourceFormat(name: string | undefined): DiskReader | undefined {
  return sourceFormats.find((format) => format.name === name);
}
