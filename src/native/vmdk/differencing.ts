/** An empty delta over a synthesized VMDK: a sparse extent without a grain, so that all of the disk is the parent's. */
import { CapacityError } from '../../base/errors.ts';
import { formatBytes } from '../../base/units.ts';
import type { ChildPlan } from '../format.ts';
import { SegmentMap } from '../segment-map.ts';
import { qemuSibling } from '../sibling-path.ts';
import { deltaGrainBytes, maxSparseDiskBytes, type VmdkGeometry } from './layout.ts';
import { sparseHead } from './synthesize.ts';

/**
 * @throws CapacityError when the parent is larger than a sparse extent can be
 * @throws UsageError when a name cannot be written in a descriptor
 */
export function synthesizeDelta({ parent, parentName, childName, identity }: ChildPlan<VmdkGeometry>): SegmentMap {
  const { sizeBytes } = parent;
  if (sizeBytes > maxSparseDiskBytes) {
    throw new CapacityError(
      `the disk has ${formatBytes(sizeBytes)}, a differencing vmdk holds at most ${formatBytes(maxSparseDiskBytes)}; use .qcow2`,
    );
  }
  const facts = {
    createType: 'monolithicSparse',
    extentName: childName,
    sizeBytes,
    identity,
    parent: { identity: parent.identity, path: qemuSibling(parentName) },
  } as const;
  return new SegmentMap(sparseHead(facts, deltaGrainBytes, []));
}
