/** Files of a Windows with no file system around them. */
import { UsageError } from '../../../src/base/errors.ts';
import { alignUp } from '../../../src/base/ranges.ts';
import { KiB } from '../../../src/base/units.ts';
import type { Disk } from '../../../src/disk/disk.ts';
import { FilesByPath } from '../../../src/filesystem/by-path.ts';
import { replaceInPlace, type EditableFileSystem } from '../../../src/filesystem/edit/editable.ts';
import type { NodeId, NodeType } from '../../../src/filesystem/file-system.ts';
import type { FilePiece } from '../../../src/filesystem/pieces.ts';

/** Each begins at a multiple of this, and is read by no more than this at once. */
export const bareFileUnitBytes = 4 * KiB;

interface Node {
  readonly type: NodeType;
  readonly names: Map<string, NodeId>;
  readonly offset: number;
  readonly sizeBytes: number;
}

/** Files that lie one behind another on a disk: hives without a file system that could stand in the way. */
export function bareFiles(disk: Disk, sizes: readonly (readonly [string, number])[]): FilesByPath {
  const nodes: Node[] = [];
  const add = (type: NodeType, offset: number, sizeBytes: number): NodeId => {
    nodes.push({ type, names: new Map(), offset, sizeBytes });
    return BigInt(nodes.length - 1);
  };
  const node = (id: NodeId): Node => {
    const found = nodes[Number(id)];
    if (found === undefined) throw new UsageError(`node ${id}: is none of ${nodes.length}`);
    return found;
  };
  const root = add('folder', 0, 0);
  let offset = 0;
  for (const [path, sizeBytes] of sizes) {
    const names = path.split('/').filter((name) => name !== '');
    const last = names.pop() ?? '';
    let folder = root;
    for (const name of names) {
      const next = node(folder).names.get(name) ?? add('folder', 0, 0);
      node(folder).names.set(name, next);
      folder = next;
    }
    node(folder).names.set(last, add('file', offset, sizeBytes));
    offset += alignUp(sizeBytes, bareFileUnitBytes);
  }
  const locate = (id: NodeId): readonly FilePiece[] => {
    const { offset: volumeOffset, sizeBytes: lengthBytes } = node(id);
    return [{ fileOffset: 0, volumeOffset, lengthBytes }];
  };
  const fileSystem: EditableFileSystem = {
    ...{ kind: 'ntfs', paths: 'windows', uuid: '', label: '', warnings: [], root, locate },
    stat: (id) => ({
      ...{ type: node(id).type, sizeBytes: node(id).sizeBytes, links: 1, permissions: undefined, owner: undefined },
      ...{ modifiedNs: undefined, changedNs: undefined, accessedNs: undefined, bornNs: undefined, device: undefined },
    }),
    lookup: (id, name) => node(id).names.get(name),
    entries: () => [],
    // In small reads, which are what mutants change.
    open: (id) => ({
      sizeBytes: node(id).sizeBytes,
      read(target, at) {
        for (let done = 0; done < target.length; done += bareFileUnitBytes)
          disk.read(target.subarray(done, done + bareFileUnitBytes), node(id).offset + at + done);
      },
      extents: (at, length) => [{ offset: at, length, kind: 'data' }],
      close: () => undefined,
    }),
    readLink: () => '',
    roomOf: (id) => node(id).sizeBytes,
    replace: (edits) => replaceInPlace({ locate }, disk, edits),
  };
  return new FilesByPath(fileSystem);
}
