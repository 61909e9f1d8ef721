/** Empty differencing files over synthesized ones: which format can stand on which, and the bytes. */
import { UsageError } from '../base/errors.ts';
import type { ChildPlan } from './format.ts';
import { extensionOf, qemuFormats, type FormatName, type Geometry } from './formats.ts';
import { synthesizeOverlay } from './qcow2/differencing.ts';
import type { SegmentMap } from './segment-map.ts';
import { synthesizeVhdChild } from './vhd/differencing.ts';
import { virtualBytesOf as virtualBytesOfVhd } from './vhd/layout.ts';
import { synthesizeVhdxChild } from './vhdx/differencing.ts';
import { blocksOf } from './vhdx/layout.ts';
import { synthesizeDelta } from './vmdk/differencing.ts';

/** A file of these holds changes over one of its own kind; a qcow2 file over any. VirtualBox alone opens a differencing VDI, and makes its own. */
const overTheirOwn: readonly FormatName[] = ['vhdx', 'vhd', 'vmdk'];

/**
 * The bytes of an empty differencing file: pure, and no part of them is the disk's.
 * @throws UsageError when the format cannot hold changes over the parent's, or a name cannot be written in it
 * @throws CapacityError when the parent is larger than the format holds
 */
export function synthesizeChild(format: FormatName, plan: ChildPlan<Geometry>): SegmentMap {
  const { parent } = plan;
  if (format === 'qcow2') return synthesizeOverlay({ ...plan, parent: backingFileOf(parent) });
  if (format === 'vhdx' && parent.format === 'vhdx') return synthesizeVhdxChild({ ...plan, parent });
  if (format === 'vhd' && parent.format === 'vhd') return synthesizeVhdChild({ ...plan, parent });
  if (format === 'vmdk' && parent.format === 'vmdk') return synthesizeDelta({ ...plan, parent });
  const fitting = overTheirOwn.includes(parent.format) ? [parent.format, 'qcow2' as const] : ['qcow2' as const];
  const use = `over ${plan.parentName} use ${fitting.map((name) => `.${extensionOf(name)}`).join(' or ')}`;
  throw new UsageError(
    overTheirOwn.includes(format)
      ? `${plan.childName}: a ${format} file holds changes over another ${format} file only; ${use}`
      : `${plan.childName}: no differencing ${format} files are made; ${use}`,
  );
}

function backingFileOf(parent: Geometry): { virtualBytes: number; qemuFormat: string } {
  return { virtualBytes: virtualBytesOf(parent), qemuFormat: qemuFormats[parent.format] };
}

/** The size that a native file says its disk has. */
function virtualBytesOf(geometry: Geometry): number {
  if (geometry.format === 'vhdx') return blocksOf(geometry).virtualBytes;
  return geometry.format === 'vhd' ? virtualBytesOfVhd(geometry) : geometry.sizeBytes;
}
