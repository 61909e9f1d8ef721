/** What a file record says of its file. */
import { viewOf } from '../../bytes/view.ts';
import type { NodeStat, NodeType } from '../file-system.ts';
import { attributeTypes, dosNamespace, fileName, recordFlags, shortStandardInformationBytes } from './layout.ts';
import type { Records } from './records.ts';
import { reparseTagOf, reparseTags } from './reparse.ts';

/** From 1601, in units of 100 ns. */
const unixStart = 116_444_736_000_000_000n;

export function statOf(records: Records, number: number): NodeStat {
  const { flags } = records.record(number);
  const isFolder = (flags & recordFlags.folder) !== 0;
  const type = typeOf(records, number, isFolder);
  const value = records.attribute(number, attributeTypes.standardInformation, '')?.value;
  const time = (index: number): bigint | undefined =>
    value === undefined || value.length < shortStandardInformationBytes
      ? undefined
      : (viewOf(value).getBigUint64(index * 8, true) - unixStart) * 100n;
  return {
    type,
    sizeBytes: isFolder ? 0 : (records.attribute(number, attributeTypes.data, '')?.sizeBytes ?? 0),
    links: namesOf(records, number),
    permissions: undefined,
    owner: undefined,
    bornNs: time(0),
    modifiedNs: time(1),
    changedNs: time(2),
    accessedNs: time(3),
    device: undefined,
  };
}

function typeOf(records: Records, number: number, isFolder: boolean): NodeType {
  const tag = reparseTagOf(records, number);
  if (tag === reparseTags.symbolicLink || tag === reparseTags.mountPoint) return 'link';
  if (isFolder) return 'folder';
  return tag === undefined || tag === reparseTags.compact ? 'file' : 'other';
}

/** The second name of a file in 8.3 form is none of its own. */
function namesOf(records: Records, number: number): number {
  const names = records
    .all(number, attributeTypes.fileName)
    .filter(({ value }) => value !== undefined && fileName.parse(value).namespace !== dosNamespace);
  return names.length;
}
