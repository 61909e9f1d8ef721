/**
 * A raw disk that was split into files of one size: `disk.001`, `disk.002`, ... as FTK Imager, X-Ways, dcfldd and 7-Zip write them; some begin with `.000`.
 *
 * A part that is missing, cut off or out of line is refused: the disk would read as another one.
 */
import { FormatError, UnavailableError, UsageError, VeneerError } from '../../base/errors.ts';
import { closeAll } from '../../base/ownership.ts';
import { concatDisks } from '../../disk/concat.ts';
import type { Disk } from '../../disk/disk.ts';
import type { DiskReader, ReaderContext } from '../../native/reader.ts';
import { readPartitionTable } from '../../volume/partition-table.ts';

const partName = /^(.*)\.(\d{3})$/s;

export const splitReader: DiskReader = {
  name: 'split',
  what: 'the first part of a raw disk that was split',
  isNamed: (fileName) => partName.test(fileName),
  signatures: [],
  isBare: true,
  open: openSplit,
};

function openSplit(file: Disk, context: ReaderContext): Disk {
  const names = partsOf(context);
  const parts = [file];
  try {
    for (const name of names.slice(1)) parts.push(context.openBeside([name]).file);
    for (const [index, part] of parts.entries()) {
      const name = names[index] ?? '';
      checkSize(part, index === parts.length - 1, file, name);
      if (index > 0 && !context.isSaid) requireNoDisk(part, name);
    }
    return concatDisks(parts);
  } catch (error) {
    closeAll(parts.slice(1));
    throw error;
  }
}

/** Names of all parts, beginning with the file itself. @throws UsageError when it is not the first; UnavailableError when one is missing */
function partsOf(context: ReaderContext): string[] {
  const { fileName } = context;
  const [, stem = '', own = ''] = partName.exec(fileName) ?? [];
  const numbers = context
    .namesBeside()
    .map((name) => partName.exec(name))
    .filter((match) => match?.[1] === stem)
    .map((match) => Number(match?.[2]))
    .sort((a, b) => a - b);
  const nameOf = (number: number): string => `${stem}.${String(number).padStart(3, '0')}`;
  const first = Number(own);
  const [lowest = first] = numbers;
  if (lowest < first)
    throw new UsageError(
      `${fileName}: is a later part of a disk that was split; give its first one, ${nameOf(lowest)}, or --source-format raw if it is a disk by itself`,
    );
  const last = numbers.at(-1) ?? first;
  for (let number = first; number <= last; number++)
    if (!numbers.includes(number))
      throw new UnavailableError(
        `${fileName}: the disk was split, and its part ${nameOf(number)} is missing, though ${nameOf(last)} is there; put it beside the others`,
      );
  return Array.from({ length: last - first + 1 }, (_, index) => nameOf(first + index));
}

/** Copies of one disk that are numbered have names like parts. @throws UsageError when a later part begins as a disk does */
function requireNoDisk(part: Disk, name: string): void {
  if (!beginsAsDisk(part)) return;
  throw new UsageError(
    `${name}: is called like a part of a disk that was split, and begins like a disk of its own; if it is a part: --source-format split; if each is a disk: --source-format raw`,
  );
}

function beginsAsDisk(part: Disk): boolean {
  try {
    return readPartitionTable(part) !== undefined;
  } catch (error) {
    if (error instanceof VeneerError) return true;
    throw error;
  }
}

function checkSize(part: Disk, isLast: boolean, first: Disk, name: string): void {
  if (isLast ? part.sizeBytes <= first.sizeBytes && part.sizeBytes > 0 : part.sizeBytes === first.sizeBytes) return;
  throw new FormatError(
    name,
    'size',
    0,
    `has ${part.sizeBytes} bytes, and the first part ${first.sizeBytes}; was it cut off, or is it a part of another disk?`,
  );
}
