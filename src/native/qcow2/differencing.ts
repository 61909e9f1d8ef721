/** An empty qcow2 overlay over a native file of any format: no cluster is there, so that all of the disk is the backing file's. */
import type { ChildPlan } from '../format.ts';
import { SegmentMap } from '../segment-map.ts';
import { qemuSibling } from '../sibling-path.ts';
import { overlayClusterBytes, place } from './layout.ts';
import { headerCluster, l1Table, refcountBlocks, refcountTable } from './synthesize.ts';

/** What the overlay has to know of a native file. */
export interface BackingFile {
  readonly virtualBytes: number;
  /** What QEMU calls its format: it is written down, since a format that is guessed is one that the guest can choose. */
  readonly qemuFormat: string;
}

export function synthesizeOverlay({
  parent,
  parentName,
}: Pick<ChildPlan<BackingFile>, 'parent' | 'parentName'>): SegmentMap {
  const { virtualBytes, qemuFormat } = parent;
  const placement = place(virtualBytes, overlayClusterBytes, 0, 0);
  const backing = { name: qemuSibling(parentName), qemuFormat };
  return new SegmentMap([
    { kind: 'bytes', bytes: headerCluster(virtualBytes, overlayClusterBytes, placement, backing) },
    l1Table(placement, [], overlayClusterBytes),
    refcountTable(placement, overlayClusterBytes),
    refcountBlocks(placement, overlayClusterBytes),
  ]);
}
