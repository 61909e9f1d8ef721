/** Every native format, by name and by file extension. */
import type { DiskFacts, NativeFile, PlanOptions } from './format.ts';
import type { VhdxGeometry } from './vhdx/layout.ts';
import { vhdx } from './vhdx/synthesize.ts';

export type Geometry = VhdxGeometry;

const formats = { vhdx } as const;
export type FormatName = keyof typeof formats;
export const formatNames = Object.keys(formats) as FormatName[];

/** The format that a file of this name has by its extension; undefined when none. */
export function formatOfName(fileName: string): FormatName | undefined {
  const extension = /\.([^.]+)$/.exec(fileName)?.[1]?.toLowerCase();
  return formatNames.find((name) => extension !== undefined && formats[name].extensions.includes(extension));
}

/** The extension that files of the format have, without the dot. */
export function extensionOf(name: FormatName): string {
  return formats[name].extensions[0] ?? name;
}

/** @throws CapacityError, UsageError as the format's own plan does */
export function planGeometry(name: FormatName, disk: DiskFacts, options: PlanOptions): Geometry {
  return formats[name].plan(disk, options);
}

/** @throws FormatError when the geometry does not keep the format's rules */
export function synthesizeFiles(geometry: Geometry, fileName: string): readonly NativeFile[] {
  switch (geometry.format) {
    case 'vhdx':
      return vhdx.synthesize(geometry, fileName);
  }
}
