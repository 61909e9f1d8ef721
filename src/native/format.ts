/**
 * What the room of every native format offers: `plan` chooses a geometry once, at `plugin create`; `synthesize` turns it into the
 * bytes of a file, again and again, with no image open.
 */
import type { z } from 'zod';
import type { Guid } from '../bytes/guid.ts';
import type { AllocatedRun } from './allocation.ts';
import type { SegmentMap } from './segment-map.ts';

/** What `plan` may know of the guest's disk. */
export interface DiskFacts {
  readonly sizeBytes: number;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  /** Names this native disk file: every GUID in it is derived from it, so that it never changes. */
  readonly identity: Guid;
  /** Runs of units of `unitBytes` that may hold data. */
  readonly allocatedRuns: (unitBytes: number) => AllocatedRun[];
}

/** What every geometry says. */
export interface NativeGeometry {
  readonly format: string;
  readonly layout: string;
  /** Of the guest's disk. */
  readonly sizeBytes: number;
}

export interface PlanOptions {
  /** One of the format's layouts; its first when absent. */
  readonly layout?: string;
  /** Payload block, grain or cluster; the format's default when absent. */
  readonly unitBytes?: number;
}

/** One file that a native disk consists of. */
export interface NativeFile {
  /** Its name, given the plugin file's name: the same name for all but a VMDK's extents. */
  readonly name: string;
  readonly map: SegmentMap;
}

/** One native format: an entry of the registry (formats.ts). */
export interface NativeFormat<Geometry extends NativeGeometry> {
  readonly name: Geometry['format'];
  /** File name extensions without the dot, the usual one first. */
  readonly extensions: readonly [string, ...string[]];
  /** The first is the default. */
  readonly layouts: readonly Geometry['layout'][];
  /** The layout that holds every block at its arithmetic place: it is planned without looking at what is allocated. */
  readonly wholeLayout: Geometry['layout'];
  /** What QEMU calls the format. */
  readonly qemuName: string;
  /** Whether hypervisors take a file of it that has holes. */
  readonly mayBeSparse: boolean;
  /** Of geometries as plugin files have them. */
  readonly schema: z.ZodType<Geometry> & z.core.$ZodTypeDiscriminable;
  /** Of a format whose disk may be several files, which name each other. */
  readonly furtherFiles?: {
    /** The inverse of the names that `synthesize` gives: the plugin file's name whose disk has a file so called; undefined where there is none. */
    describedBy(partName: string): string | undefined;
  };
  /**
   * @throws CapacityError when the disk passes a limit of the format
   * @throws UsageError when an option does not fit the format
   */
  plan(disk: DiskFacts, options: PlanOptions): Geometry;
  /**
   * Pure: the same geometry and name give the same bytes.
   * @throws FormatError when a plugin file's geometry does not fit the format's own rules
   */
  synthesize(geometry: Geometry, fileName: string): readonly NativeFile[];
  /** The size that the file says its disk has; the disk's own, when absent. */
  virtualBytes?(geometry: Geometry): number;
  /** The bytes of an empty file that holds changes over another of this format; absent where none is made. @throws as `synthesizeChild` */
  child?(plan: ChildPlan<Geometry>): SegmentMap;
  /** The bytes of an empty file that holds changes over a disk of any format. @throws as `synthesizeChild` */
  overlay?(plan: ChildPlan<BackingFile>): SegmentMap;
}

/** A file as one of another format knows it that holds changes over it. */
export interface BackingFile {
  readonly virtualBytes: number;
  readonly qemuFormat: string;
}

/** What an empty differencing file is made of. */
export interface ChildPlan<ParentGeometry> {
  /** The native file that it holds changes over. */
  readonly parent: ParentGeometry;
  /** Of the parent, in the child's own folder. */
  readonly parentName: string;
  readonly childName: string;
  /** Names the child: every GUID of its own is derived from it. */
  readonly identity: Guid;
}
