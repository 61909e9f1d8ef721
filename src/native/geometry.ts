/** The checks that every room makes: of a disk before a geometry is planned, and of a geometry that comes out of a plugin file. */
import { CapacityError, FormatError, UsageError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import type { DiskFacts, PlanOptions } from './format.ts';

/** The sector of VHD, VMDK, VDI and of a raw file's unit of size. */
export const sectorBytes = 512;

/**
 * The layout that was asked for, or the format's first.
 * @throws UsageError when the format has no such layout, or the disk is empty or ends inside a sector
 * @throws CapacityError when the disk is larger than `maxDiskBytes`
 */
export function chooseLayout<Name extends string>(
  format: { readonly name: string; readonly layouts: readonly [Name, ...Name[]] },
  disk: DiskFacts,
  options: PlanOptions,
  maxDiskBytes: number,
): Name {
  const { name, layouts } = format;
  const layout = layouts.find((candidate) => candidate === (options.layout ?? layouts[0]));
  if (layout === undefined) {
    throw new UsageError(`${name} has no layout "${options.layout}"; it has ${layouts.join(', ')}`);
  }
  if (disk.sizeBytes <= 0 || disk.sizeBytes % sectorBytes !== 0) {
    throw new UsageError(`a disk of ${disk.sizeBytes} bytes is not a whole number of sectors of ${sectorBytes} bytes`);
  }
  if (disk.sizeBytes > maxDiskBytes) {
    throw new CapacityError(
      `the disk has ${formatBytes(disk.sizeBytes)}, ${name} (${layout}) holds at most ${formatBytes(maxDiskBytes)}`,
    );
  }
  return layout;
}

/** @throws UsageError for a disk with 4 KiB sectors: its partition table would be looked for in the wrong place. */
export function requireSmallSectors(format: string, disk: DiskFacts): void {
  if (disk.logicalSectorBytes === sectorBytes) return;
  throw new UsageError(
    `the disk has sectors of ${disk.logicalSectorBytes} bytes, ${format} has ${sectorBytes} only; use vhdx, raw or qcow2`,
  );
}

/**
 * The unit that was asked for, when it is one of those the format has; undefined when none was asked for.
 * @throws UsageError for any other
 */
export function chosenUnit(
  format: string,
  noun: string,
  options: PlanOptions,
  allowed: readonly number[],
): number | undefined {
  const { unitBytes } = options;
  if (unitBytes === undefined || allowed.includes(unitBytes)) return unitBytes;
  const choice =
    allowed.length === 0 ? 'this layout has none to choose a size for' : `use one of ${allowed.join(', ')}`;
  throw new UsageError(`${format} has no ${noun} of ${unitBytes} bytes; ${choice}`);
}

/** @throws FormatError when a geometry that was read from a plugin file breaks a rule of its format. */
export function checkGeometry(format: string, field: string, holds: boolean, rule: string): asserts holds {
  if (!holds) throw new FormatError(`${format} geometry`, field, 0, rule);
}

/** @throws FormatError when the size is none that `plan` could have taken. */
export function checkGeometrySize(format: string, sizeBytes: number, maxDiskBytes: number): void {
  const whole = Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % sectorBytes === 0;
  checkGeometry(format, 'sizeBytes', whole, `${sizeBytes} is not a whole number of sectors`);
  checkGeometry(format, 'sizeBytes', sizeBytes <= maxDiskBytes, `${sizeBytes} is more than ${maxDiskBytes}`);
}
