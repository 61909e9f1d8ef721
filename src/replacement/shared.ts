/**
 * What the threads of one mount share of a replacement, and what must be done by one of them at a time: its header, its flushes, and the end
 * of all writing when one of these fails.
 */
import * as fs from '../base/fs.ts';
import { flushFile } from '../base/durable.ts';
import { UnavailableError, VeneerError } from '../base/errors.ts';
import { nilGuid, type Guid } from '../bytes/guid.ts';
import { PlainFile, type DataFile } from './data-file.ts';
import { noSeal, type ReplacementSeal } from './replacement-seal.ts';
import { SealedFile } from './sealed-file.ts';
import { mapVersions, unitBytes } from './layout.ts';
import { flushMap, writeHeader } from './map-file.ts';
import type { PresenceMap, SharedPresence } from './presence-map.ts';

/** Plain values and shared memory. */
export interface SharedReplacement {
  readonly name: string;
  readonly pluginId: Guid;
  readonly bootId: Guid;
  /** Size of the synthesized file. */
  readonly baseBytes: number;
  readonly dataFd: number;
  readonly mapFd: number;
  /** Of a sealed data file. */
  readonly seal: ReplacementSeal | undefined;
  readonly presence: SharedPresence;
  /** Indexes below. */
  readonly numbers: SharedArrayBuffer;
  /** Units that the guest reads before the fill has them; see hot-units.ts. */
  readonly hot: SharedArrayBuffer;
  /** How fast both sources are; see balance.ts. */
  readonly speeds: SharedArrayBuffer;
  /** What the mount's threads know the data file by towards the kernel; see DirectFile. */
  readonly backing: SharedArrayBuffer;
}

/** The synthesized file below. `read` fills all of target or throws. */
export interface BaseFile {
  readonly sizeBytes: number;
  read(target: Uint8Array, offset: number): void;
}

/** Indexes into `numbers`: signed 64-bit. */
export const shared = {
  sizeBytes: 0,
  visibleBytes: 1,
  sequence: 2,
  state: 3,
  /** One of `writing`. */
  writing: 4,
  /** Counts the starts and the ends of changes of size, and so is odd during one, and during what else takes units away from readers. */
  resizes: 5,
  /** 1 once a guest may write past the map, straight to the data file. */
  direct: 6,
  /** 1 after a power loss, until the file was verified: a unit that counts as unwritten may hold a write then; the data file alone says what it holds. */
  suspect: 7,
  count: 8,
} as const;

/** Whether anything may be written. */
export const writing = {
  allowed: 0n,
  /** A flush failed: nothing is written or flushed any more. */
  failed: 1n,
  /** The file is being decrypted (fill/decrypt.ts). */
  frozen: 2n,
} as const;

/** What changes in the header while a replacement is open. */
export interface HeaderChange {
  readonly visibleBytes: number;
  readonly cutting: 0 | 1;
  /** While cutting. */
  readonly cutBytes?: number;
  /** As they are, when absent. */
  readonly state?: number;
  readonly direct?: 0 | 1;
  readonly suspect?: 0 | 1;
}

/** The data file, for one thread. */
export function dataFileOf({ dataFd, name, seal }: SharedReplacement, map: PresenceMap): DataFile {
  return seal === undefined ? new PlainFile(dataFd, name) : new SealedFile(dataFd, name, seal.key, map);
}

/** What the header says of the seal. */
export function sealFields(seal: ReplacementSeal | undefined): { sealed: 0 | 1; sealId: Guid; keyCheck: Uint8Array } {
  return { sealed: seal === undefined ? 0 : 1, sealId: (seal ?? noSeal).id, keyCheck: (seal ?? noSeal).check };
}

/** Writes the next header, durably. The caller holds the flush lock. */
export function commitHeader(parts: SharedReplacement, change: HeaderChange, bootId = parts.bootId): void {
  const numbers = new BigInt64Array(parts.numbers);
  // A number that may have reached the disk is not used again, even where writing it failed.
  const sequence = Atomics.add(numbers, shared.sequence, 1n) + 1n;
  const header = {
    version: mapVersions[parts.seal === undefined ? 'plain' : 'sealed'],
    state: change.state ?? Number(Atomics.load(numbers, shared.state)),
    cutting: change.cutting,
    unitBytes,
    pluginId: parts.pluginId,
    bootId,
    sequence,
    baseBytes: BigInt(parts.baseBytes),
    visibleBytes: BigInt(change.visibleBytes),
    fileName: parts.name,
    direct: change.direct ?? Number(Atomics.load(numbers, shared.direct)),
    suspect: change.suspect ?? Number(Atomics.load(numbers, shared.suspect)),
    ...sealFields(parts.seal),
    cutBytes: BigInt(change.cutBytes ?? 0),
    crc32c: 0,
  };
  writeHeader(parts.mapFd, header, parts.name);
}

/** Length of the file as a guest sees it. Who writes straight to it tells nobody: the system is asked then. */
export function sizeOf(parts: SharedReplacement): number {
  const numbers = new BigInt64Array(parts.numbers);
  if (Atomics.load(numbers, shared.direct) !== 0n) return fs.fstatSync(parts.dataFd).size;
  return Number(Atomics.load(numbers, shared.sizeBytes));
}

/** What a range of the synthesized file shows: its own bytes below the visible size, zeros above it. */
export function readVisible(numbers: BigInt64Array, base: BaseFile, target: Uint8Array, at: number): void {
  const visible = Math.min(Number(Atomics.load(numbers, shared.visibleBytes)), base.sizeBytes);
  const fromBase = Math.max(0, Math.min(target.length, visible - at));
  if (fromBase > 0) base.read(target.subarray(0, fromBase), at);
  target.fill(0, fromBase);
}

/** Makes everything that was acknowledged durable. The caller holds the flush lock. @throws CapacityError, UnavailableError */
export function flushAll(parts: SharedReplacement, map: PresenceMap): void {
  requireFlushed(parts);
  const visibleBytes = Number(Atomics.load(new BigInt64Array(parts.numbers), shared.visibleBytes));
  const flush = (fd: number) => () => orPoison(parts, { visibleBytes, cutting: 0 }, () => flushFile(fd, parts.name));
  flushMap(parts.mapFd, map, { data: flush(parts.dataFd), map: flush(parts.mapFd) }, parts.name);
}

/** Before a write. @throws UnavailableError as requireFlushed, and while the file is being decrypted */
export function requireSound(parts: SharedReplacement): void {
  if (Atomics.load(new BigInt64Array(parts.numbers), shared.writing) === writing.allowed) return;
  requireFlushed(parts);
  throw new UnavailableError(
    `${parts.name}: is being decrypted into a plain disk file; write to that when it is done`,
    {
      retryable: true,
    },
  );
}

/** @throws UnavailableError after a flush failed: what it covered may be lost, and going on would hide it */
export function requireFlushed(parts: SharedReplacement): void {
  if (Atomics.load(new BigInt64Array(parts.numbers), shared.writing) !== writing.failed) return;
  throw new UnavailableError(`${parts.name}: an earlier flush failed; unmount, check the disk below, and mount again`);
}

/**
 * Does what must not fail half way. When it does, nothing more is written or flushed here: the system may hold for clean what it could not
 * write. Nor will the next open believe the live bits: it goes back to the durable ones, as after a power loss.
 * @throws UnavailableError when it fails
 */
export function orPoison(parts: SharedReplacement, header: HeaderChange, action: () => void): void {
  try {
    action();
  } catch (cause) {
    Atomics.store(new BigInt64Array(parts.numbers), shared.writing, writing.failed);
    try {
      commitHeader(parts, header, nilGuid);
    } catch (error) {
      // The first failure is the one to report.
      if (!(error instanceof VeneerError)) throw error;
    }
    throw new UnavailableError(`${parts.name}: a flush failed; what was written since the last one may be lost`, {
      cause,
    });
  }
}
