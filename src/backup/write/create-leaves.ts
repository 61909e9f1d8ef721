/** The share of one thread in a creation: takes leaf after leaf until none is left. Runs in a worker, or in place for small images. */
import { UnavailableError } from '../../base/errors.ts';
import { closeAll, type Closable } from '../../base/ownership.ts';
import type { Disk } from '../../disk/disk.ts';
import { sliceDisk } from '../../disk/slice.ts';
import type { Guid } from '../../bytes/guid.ts';
import type { ByteRange } from '../../disk/byte-ranges.ts';
import { BlockSealer } from '../crypto/block-seal.ts';
import { KeyRing } from '../crypto/key-ring.ts';
import { ChainKey, type ThreadKey } from '../crypto/seal.ts';
import * as format from '../format/layout.ts';
import { openChainDisk } from '../read/chain.ts';
import { overlayRanges } from './changed-ranges.ts';
import { LeafWriter, type WrittenLeaf } from './leaf-writer.ts';

/** All that a thread needs: plain values and shared memory. */
export interface CreateJob {
  readonly fd: number;
  /** Of the file behind fd, for errors. */
  readonly name: string;
  readonly sourcePath: string;
  /** What the opener is told of it beside its name. */
  readonly sourceFormat: string | undefined;
  /** Of the source, when the creation was planned. */
  readonly sizeBytes: number;
  readonly parentPath: string | undefined;
  readonly changed: readonly ByteRange[] | undefined;
  readonly blockBytes: number;
  readonly codec: format.Codec;
  readonly sequence: number;
  /** Of an encrypted image. */
  readonly seal: { readonly key: ThreadKey; readonly imageId: Guid } | undefined;
  /** [0]: the first free byte of the file. Shared. */
  readonly nextFree: BigInt64Array;
  /** [0]: the next leaf that nobody has taken. Shared. */
  readonly nextLeaf: Int32Array;
}

/** Opens the source of a creation, once in each thread. */
export type OpenSource = (sourcePath: string, format: string | undefined) => Disk;

/** @throws whatever source, parent or file throw; the other threads are then ended by their team */
export function writeLeaves(job: CreateJob, open: OpenSource, onLeaf: (leaf: WrittenLeaf) => void): void {
  const owned: Closable[] = [];
  const own = <T extends Closable>(item: T): T => {
    owned.push(item);
    return item;
  };
  try {
    const parent = job.parentPath === undefined ? undefined : own(openParent(job.parentPath, job));
    const sealer =
      job.seal === undefined ? undefined : new BlockSealer(new ChainKey(job.seal.key), { ...job, ...job.seal });
    takeLeaves(job, new LeafWriter(job, { ...job, parent, sealer, disk: own(openPlanned(job, open)) }), onLeaf);
  } finally {
    closeAll(owned);
  }
}

function openParent(parentPath: string, { seal }: CreateJob): Disk {
  const keys = new KeyRing({ credentials: [], chains: seal === undefined ? [] : [seal.key] });
  return openChainDisk(parentPath, undefined, undefined, keys);
}

/** The source as it was when the creation was planned: growth since then is left out, shrinkage is an error. */
function openPlanned(job: CreateJob, open: OpenSource): Disk {
  const source = open(job.sourcePath, job.sourceFormat);
  if (source.sizeBytes < job.sizeBytes) {
    source.close();
    throw new UnavailableError(
      `${job.sourcePath}: shrank from ${job.sizeBytes} to ${source.sizeBytes} bytes; try again when it is at rest`,
    );
  }
  const planned = sliceDisk(source, 0, job.sizeBytes);
  if (job.changed === undefined || job.parentPath === undefined) return planned;
  return overlayRanges(openParent(job.parentPath, job), planned, job.changed);
}

function takeLeaves(job: CreateJob, writer: LeafWriter, onLeaf: (leaf: WrittenLeaf) => void): void {
  const leafSpan = format.leafEntries * job.blockBytes;
  const leafCount = Math.ceil(job.sizeBytes / leafSpan);
  for (;;) {
    const leafNumber = Atomics.add(job.nextLeaf, 0, 1);
    if (leafNumber >= leafCount) return;
    const next = Math.floor(writer.nextOfInterest(leafNumber * leafSpan) / leafSpan);
    if (next > leafNumber) {
      skipTo(job.nextLeaf, Math.min(next, leafCount));
      continue;
    }
    const leaf = writer.write(leafNumber);
    if (leaf !== undefined) onLeaf(leaf);
  }
}

/** Moves the shared cursor forward over leaves that need nothing; never back. */
function skipTo(cursor: Int32Array, leafNumber: number): void {
  for (let at = Atomics.load(cursor, 0); at < leafNumber;) {
    const found = Atomics.compareExchange(cursor, 0, at, leafNumber);
    if (found === at) return;
    at = found;
  }
}
