/** Raw disk files: file offset and disk offset are the same. */
import { UsageError } from '../../base/errors.ts';
import type { DiskFacts, NativeFile, PlanOptions } from '../format.ts';
import { checkGeometry, checkGeometrySize, chooseLayout } from '../geometry.ts';
import { SegmentMap } from '../segment-map.ts';
import { maxDiskBytes, type RawGeometry } from './layout.ts';

export const layouts = ['flat'] as const;

export function plan(disk: DiskFacts, options: PlanOptions): RawGeometry {
  const layout = chooseLayout({ name: 'raw', layouts }, disk, options, maxDiskBytes);
  if (options.unitBytes !== undefined) throw new UsageError('raw has no payload blocks to choose a size for');
  return { format: 'raw', layout, sizeBytes: disk.sizeBytes };
}

export function synthesize(geometry: RawGeometry, fileName: string): readonly NativeFile[] {
  const { sizeBytes } = geometry;
  checkGeometry('raw', 'layout', layouts.includes(geometry.layout), `"${geometry.layout}" is not a layout of it`);
  checkGeometrySize('raw', sizeBytes, maxDiskBytes);
  return [{ name: fileName, map: new SegmentMap([{ kind: 'disk', diskOffset: 0, lengthBytes: sizeBytes }]) }];
}
