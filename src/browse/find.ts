/** Every file below some folders that rules want, in the order of the disk's folders. */
import { describeError } from '../base/errors.ts';
import { isRefusal } from '../volume/open-disk.ts';
import type { FoundNode, GuestTree } from './guest-tree.ts';

export interface FindRules {
  /** Of the last name: `*` stands for any characters, `?` for one. */
  readonly name: string | undefined;
  readonly type: 'file' | 'folder' | 'link' | undefined;
  /** Files of more bytes than these. */
  readonly largerBytes: number | undefined;
}

/** Folders in one another that are followed: no guest has as many. */
const maxDepth = 1024;

/** @param complain of a folder that cannot be read: the others are */
export function* findIn(
  tree: GuestTree,
  folders: readonly FoundNode[],
  rules: FindRules,
  complain: (text: string) => void,
): Generator<FoundNode> {
  const pattern = rules.name === undefined ? undefined : patternOf(rules.name);
  const isWanted = (name: string, { stat }: FoundNode): boolean =>
    (pattern?.test(name) ?? true) &&
    (rules.type === undefined || stat.type === rules.type) &&
    (rules.largerBytes === undefined || (stat.type === 'file' && stat.sizeBytes > rules.largerBytes));

  function* below(at: FoundNode, depth: number): Generator<FoundNode> {
    let entries: ReturnType<GuestTree['list']>;
    try {
      entries = tree.list(at, complain);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      complain(`${at.path}: is not read: ${describeError(error)}`);
      return;
    }
    for (const { name, found } of entries) {
      if (isWanted(name, found)) yield found;
      if (found.stat.type !== 'folder') continue;
      if (depth < maxDepth) yield* below(found, depth + 1);
      else complain(`${found.path}: is deeper than ${maxDepth} folders, and is not entered`);
    }
  }

  for (const folder of folders) yield* below(folder, 0);
}

function patternOf(text: string): RegExp {
  const escaped = text
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${escaped}$`, 's');
}
