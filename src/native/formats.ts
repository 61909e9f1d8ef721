/** Every native format, by name and by file extension. */
import type { DiskFacts, NativeFile, PlanOptions } from './format.ts';
import type { Qcow2Geometry } from './qcow2/layout.ts';
import { qcow2 } from './qcow2/synthesize.ts';
import type { RawGeometry } from './raw/layout.ts';
import { raw } from './raw/synthesize.ts';
import type { VdiGeometry } from './vdi/layout.ts';
import { vdi } from './vdi/synthesize.ts';
import type { VhdGeometry } from './vhd/layout.ts';
import { vhd } from './vhd/synthesize.ts';
import type { VhdxGeometry } from './vhdx/layout.ts';
import { vhdx } from './vhdx/synthesize.ts';
import type { VmdkGeometry } from './vmdk/layout.ts';
import { describedBy, vmdk } from './vmdk/synthesize.ts';

export type Geometry = VhdxGeometry | VhdGeometry | VmdkGeometry | VdiGeometry | Qcow2Geometry | RawGeometry;

const formats = { vhdx, vhd, vmdk, vdi, qcow2, raw } as const;
export type FormatName = keyof typeof formats;
export const formatNames = Object.keys(formats) as FormatName[];

/** What QEMU calls each format. */
export const qemuFormats: Readonly<Record<FormatName, string>> = {
  vhdx: 'vhdx',
  vhd: 'vpc',
  vmdk: 'vmdk',
  vdi: 'vdi',
  qcow2: 'qcow2',
  raw: 'raw',
};

/** Formats whose disk is one file, so that an image can be shown as it with no plugin file. */
export const singleFileFormats = formatNames.filter((name) => name !== 'vmdk');

/** The format that a file of this name has by its extension; undefined when none. */
export function formatOfName(fileName: string): FormatName | undefined {
  const extension = /\.([^.]+)$/.exec(fileName)?.[1]?.toLowerCase();
  return formatNames.find((name) => extension !== undefined && formats[name].extensions.includes(extension));
}

/** The extension that files of the format have, without the dot. */
export function extensionOf(name: FormatName): string {
  return formats[name].extensions[0] ?? name;
}

/** The layouts of a format that hold every block at its arithmetic place: planned without looking at what is allocated. */
export const wholeLayouts: Readonly<Record<FormatName, string>> = {
  vhdx: 'fixed',
  vhd: 'fixed',
  vmdk: 'flat',
  vdi: 'static',
  qcow2: 'full',
  raw: 'flat',
};

/** @throws CapacityError, UsageError as the format's own plan does */
export function planGeometry(name: FormatName, disk: DiskFacts, options: PlanOptions): Geometry {
  return formats[name].plan(disk, options);
}

/** @throws FormatError when the geometry does not keep the format's rules */
export function synthesizeFiles(geometry: Geometry, fileName: string): readonly NativeFile[] {
  switch (geometry.format) {
    case 'vhdx':
      return vhdx.synthesize(geometry, fileName);
    case 'vhd':
      return vhd.synthesize(geometry, fileName);
    case 'vmdk':
      return vmdk.synthesize(geometry, fileName);
    case 'vdi':
      return vdi.synthesize(geometry, fileName);
    case 'qcow2':
      return qcow2.synthesize(geometry, fileName);
    case 'raw':
      return raw.synthesize(geometry, fileName);
  }
}

/** The inverse of the names that `synthesizeFiles` gives to further files: which file names may be those of a disk that has a file so called. */
export function namesWithFile(partName: string): readonly string[] {
  const described = describedBy(partName);
  return described === undefined ? [] : [described];
}
