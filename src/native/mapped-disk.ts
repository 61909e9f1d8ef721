/** A disk of which every piece lies somewhere in a native file, in its parent, or nowhere: what the readers of tables share. */
import { assert } from '../base/errors.ts';
import { closeAll, type Closable } from '../base/ownership.ts';
import { checkRange, mergeExtents, type Disk, type Extent } from '../disk/disk.ts';
import { checkInside } from './reader.ts';

/** Where the next bytes of the disk are. */
export type Run =
  | { readonly kind: 'zero'; readonly lengthBytes: number }
  | { readonly kind: 'parent'; readonly lengthBytes: number }
  | { readonly kind: 'stored'; readonly lengthBytes: number; readonly fileOffset: number }
  /** Inside a compressed unit: `unpack` fills a target of the run's length. */
  | { readonly kind: 'packed'; readonly lengthBytes: number; readonly unpack: (target: Uint8Array) => void };

/** A run, and where on the disk it lies. */
export type DiskRun = Run & { readonly offset: number };

/** A disk that can tell where in its file it lies. */
export interface MappedDisk extends Disk {
  /** The runs of [offset, offset + lengthBytes), in order, without gaps. Reads tables only. */
  runs(offset: number, lengthBytes: number): Iterable<DiskRun>;
}

export interface Mapping {
  /** Names the format in errors. */
  readonly structure: string;
  readonly sizeBytes: number;
  /** The run at `offset`: at least one byte of the `lengthBytes` that follow, as many as is cheap to tell. Reads tables only. */
  readonly locate: (offset: number, lengthBytes: number) => Run;
  /** What `parent` runs read: its bytes from `startBytes` on; zeros past its end. */
  readonly parent?: { readonly disk: Disk; readonly startBytes: number } | undefined;
  /** Closed with the disk, the last first. */
  readonly owns: readonly Closable[];
}

/** The disk that a mapping over `file` makes. A run outside the file is a FormatError when it is met. */
export function mappedDisk(file: Disk, mapping: Mapping): MappedDisk {
  const { structure, sizeBytes } = mapping;

  function* runs(offset: number, lengthBytes: number): Generator<DiskRun> {
    const end = offset + lengthBytes;
    let pending: (Run & { offset: number }) | undefined;
    for (let at = offset; at < end;) {
      const run = mapping.locate(at, end - at);
      assert(run.lengthBytes > 0 && run.lengthBytes <= end - at, `a run of ${run.lengthBytes} bytes in ${structure}`);
      if (run.kind === 'stored') checkInside(file, structure, 'payload', run.fileOffset, run.lengthBytes);
      const joined: Run | undefined = pending === undefined ? undefined : joinedRun(pending, run);
      if (joined === undefined) {
        if (pending !== undefined) yield pending;
        pending = { ...run, offset: at };
      } else {
        pending = { ...joined, offset: pending?.offset ?? at };
      }
      at += run.lengthBytes;
    }
    if (pending !== undefined) yield pending;
  }

  function* unmerged(offset: number, lengthBytes: number): Generator<Extent> {
    for (const run of runs(offset, lengthBytes)) {
      if (run.kind === 'zero') yield { offset: run.offset, length: run.lengthBytes, kind: 'zero' };
      else if (run.kind === 'packed') yield { offset: run.offset, length: run.lengthBytes, kind: 'data' };
      else if (run.kind === 'parent') yield* parentExtents(mapping, run.offset, run.lengthBytes);
      else {
        const shift = run.offset - run.fileOffset;
        for (const extent of file.extents(run.fileOffset, run.lengthBytes)) {
          yield { ...extent, offset: extent.offset + shift };
        }
      }
    }
  }

  const disk: MappedDisk = {
    sizeBytes,
    runs,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      for (const run of runs(offset, target.length)) {
        const part = target.subarray(run.offset - offset, run.offset - offset + run.lengthBytes);
        if (run.kind === 'zero') part.fill(0);
        else if (run.kind === 'packed') run.unpack(part);
        else if (run.kind === 'parent') readParent(mapping, part, run.offset);
        else file.read(part, run.fileOffset);
      }
    },
    extents(offset, length) {
      checkRange(disk, offset, length);
      return mergeExtents(unmerged(offset, length));
    },
    close() {
      closeAll(mapping.owns);
    },
  };
  return disk;
}

/** Both runs as one, when the second goes on where the first ends. */
function joinedRun(first: Run, second: Run): Run | undefined {
  const lengthBytes = first.lengthBytes + second.lengthBytes;
  if (first.kind === 'stored' && second.kind === 'stored') {
    return second.fileOffset === first.fileOffset + first.lengthBytes ? { ...first, lengthBytes } : undefined;
  }
  if (first.kind === 'packed' || first.kind !== second.kind) return undefined;
  return { ...first, lengthBytes };
}

/** How many of the bytes at disk offset `offset` the parent has. */
function bytesInParent({ parent }: Mapping, offset: number, lengthBytes: number): number {
  if (parent === undefined) return 0;
  return Math.max(0, Math.min(lengthBytes, parent.disk.sizeBytes - parent.startBytes - offset));
}

function readParent(mapping: Mapping, target: Uint8Array, offset: number): void {
  const count = bytesInParent(mapping, offset, target.length);
  if (count > 0) mapping.parent?.disk.read(target.subarray(0, count), mapping.parent.startBytes + offset);
  target.fill(0, count);
}

function* parentExtents(mapping: Mapping, offset: number, lengthBytes: number): Generator<Extent> {
  const count = bytesInParent(mapping, offset, lengthBytes);
  if (mapping.parent !== undefined && count > 0) {
    const { disk, startBytes } = mapping.parent;
    for (const extent of disk.extents(startBytes + offset, count)) {
      yield { ...extent, offset: extent.offset - startBytes };
    }
  }
  yield { offset: offset + count, length: lengthBytes - count, kind: 'zero' };
}
