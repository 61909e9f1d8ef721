/** Every native format that plugin files may have, by name and by file extension: a room and a line here is all that a further one takes. */
import { z } from 'zod';
import type { DiskFacts, NativeFile, NativeFormat, PlanOptions } from './format.ts';
import { qcow2 } from './qcow2/format.ts';
import { raw } from './raw/format.ts';
import { vdi } from './vdi/format.ts';
import { vhd } from './vhd/format.ts';
import { vhdx } from './vhdx/format.ts';
import { vmdk } from './vmdk/format.ts';

const formats = { vhdx, vhd, vmdk, vdi, qcow2, raw } as const;
type GeometryOf<Format> = Format extends NativeFormat<infer Geometry> ? Geometry : never;

export type FormatName = keyof typeof formats;
export type Geometry = GeometryOf<(typeof formats)[FormatName]>;
export const formatNames = Object.keys(formats) as FormatName[];

export function formatOf(name: FormatName): NativeFormat<Geometry> {
  return formats[name];
}

const schemas = formatNames.map((name) => formatOf(name).schema);
export const geometrySchema: z.ZodType<Geometry> = z.discriminatedUnion('format', schemas as [(typeof schemas)[0]]);

/** Formats whose disk is one file, so that an image can be shown as it with no plugin file. */
export const singleFileFormats = formatNames.filter((name) => formatOf(name).furtherFiles === undefined);

/** The format that a file of this name has by its extension; undefined when none. */
export function formatOfName(fileName: string): FormatName | undefined {
  const extension = /\.([^.]+)$/.exec(fileName)?.[1]?.toLowerCase();
  return formatNames.find((name) => extension !== undefined && formats[name].extensions.includes(extension));
}

/** The extension that files of the format have, without the dot. */
export function extensionOf(name: FormatName): string {
  return formats[name].extensions[0];
}

/** @throws CapacityError, UsageError as the format's own plan does */
export function planGeometry(name: FormatName, disk: DiskFacts, options: PlanOptions): Geometry {
  return formats[name].plan(disk, options);
}

/** @throws FormatError when the geometry does not keep the format's rules */
export function synthesizeFiles(geometry: Geometry, fileName: string): readonly NativeFile[] {
  return formatOf(geometry.format).synthesize(geometry, fileName);
}

/** The inverse of the names that `synthesizeFiles` gives to further files: which file names may be those of a disk that has a file so called. */
export function namesWithFile(partName: string): readonly string[] {
  return formatNames.flatMap((name) => formatOf(name).furtherFiles?.describedBy(partName) ?? []);
}
