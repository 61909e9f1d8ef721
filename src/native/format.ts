/**
 * What the room of every native format offers: `plan` chooses a geometry once, at `plugin create`; `synthesize` turns it into the
 * bytes of a file, again and again, with no image open.
 */
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

export interface NativeFormat<Geometry> {
  readonly name: string;
  /** File name extensions without the dot. */
  readonly extensions: readonly string[];
  /** The first is the default. */
  readonly layouts: readonly string[];
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
