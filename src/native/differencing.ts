/** Empty differencing files over synthesized ones: which format can stand on which, and the bytes. */
import { UsageError } from '../base/errors.ts';
import type { BackingFile, ChildPlan } from './format.ts';
import { extensionOf, formatNames, formatOf, type FormatName, type Geometry } from './formats.ts';
import type { SegmentMap } from './segment-map.ts';

/**
 * The bytes of an empty differencing file: pure, and no part of them is the disk's. Most formats hold changes over their own kind, some over any.
 * @throws UsageError when the format cannot hold changes over the parent's, or a name cannot be written in it
 * @throws CapacityError when the parent is larger than the format holds
 */
export function synthesizeChild(name: FormatName, plan: ChildPlan<Geometry>): SegmentMap {
  const { parent } = plan;
  const format = formatOf(name);
  if (format.overlay !== undefined) return format.overlay({ ...plan, parent: backingFileOf(parent) });
  if (format.child !== undefined && name === parent.format) return format.child(plan);
  const use = `over ${plan.parentName} use ${fittingOver(parent.format).join(' or ')}`;
  throw new UsageError(
    format.child === undefined
      ? `${plan.childName}: no differencing ${name} files are made; ${use}`
      : `${plan.childName}: a ${name} file holds changes over another ${name} file only; ${use}`,
  );
}

/** Extensions of formats that can hold changes over one, its own first. */
function fittingOver(parent: FormatName): string[] {
  const own = formatOf(parent).child === undefined ? [] : [parent];
  const all = [...own, ...formatNames.filter((name) => formatOf(name).overlay !== undefined)];
  return all.map((name) => `.${extensionOf(name)}`);
}

function backingFileOf(parent: Geometry): BackingFile {
  const format = formatOf(parent.format);
  return { virtualBytes: format.virtualBytes?.(parent) ?? parent.sizeBytes, qemuFormat: format.qemuName };
}
