/**
 * Foreign VHDX files as disks: fixed, dynamic and differencing, also such that their writer did not close.
 *
 * Order: file type, headers, log, regions, metadata. The log comes before everything that it may have changed. Nothing is written.
 */
import { FormatError, UnavailableError, UnsupportedError } from '../../base/errors.ts';
import { nilGuid, type Guid } from '../../bytes/guid.ts';
import type { Disk } from '../../disk/disk.ts';
import { mappedDisk } from '../mapped-disk.ts';
import { hasExtension, spellingsOf, type DiskReader, type ReaderContext } from '../reader.ts';
import { BlockTable } from './block-table.ts';
import { replayLog } from './log.ts';
import { logPlaceOf, overlap, readCurrentHeader, readMetadata, readRegions, type Region } from './metadata.ts';
import type { ParentLocator } from './parent-locator.ts';
import { vhdx } from './format.ts';

export type { ParentLocator } from './parent-locator.ts';

/** A guard against files that name each other as parents; Hyper-V's own chains stay far below. */
const maxParents = 64;

/** A parent's file, and how its own parent is found: a relative path is relative to it. */
export interface ParentFile {
  readonly file: Disk;
  readonly openParent?: OpenParent;
}

/** Finds and opens the file that a locator names, and passes its ownership on; throws when there is none. */
export type OpenParent = (locator: ParentLocator) => ParentFile;

export interface VhdxReadOptions {
  /** Without it a differencing file is refused. */
  readonly openParent?: OpenParent;
  /** Memory for pages of the block table, for each file of a chain. */
  readonly cacheBytes?: number;
}

export interface VhdxDisk extends Disk {
  readonly kind: 'fixed' | 'dynamic' | 'differencing';
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  readonly payloadBlockBytes: number;
  /** What a child names this file by; of a file with a log to replay too. */
  readonly dataWriteGuid: Guid;
  /** SCSI page 83. */
  readonly virtualDiskId: Guid;
  /** Ranges of the file that read otherwise than they are stored: what is still in its log. */
  readonly replayed: readonly { readonly offset: number; readonly length: number }[];
}

/**
 * Opens a VHDX for reading.
 * @param file the file's bytes; owned by the disk that is returned, and still the caller's when this throws
 * @throws FormatError when the file breaks [MS-VHDX]
 * @throws UnsupportedError when it requires what this reader does not know, or a parent and options.openParent is absent
 * @throws UnavailableError when a parent is not the one that the child was made over; and what options.openParent throws
 */
export function openVhdx(file: Disk, options: VhdxReadOptions = {}): VhdxDisk {
  return open(file, options, 0);
}

function open(file: Disk, options: VhdxReadOptions, depth: number): VhdxDisk {
  const header = readCurrentHeader(file);
  const isDirty = header.logGuid !== nilGuid;
  const log = isDirty ? logPlaceOf(header, file) : undefined;
  const { disk: whole, replayed } = log === undefined ? { disk: file, replayed: [] } : replayLog(file, log);
  const regions = readRegions(whole);
  const taken: Region[] = [regions.bat, regions.metadata];
  if (log !== undefined) {
    if (taken.some((region) => overlap(region, log)))
      throw new FormatError('VHDX header', 'logOffset', 0, 'the log overlaps a region');
    taken.push(log);
  }
  const metadata = readMetadata(whole, regions.metadata);
  const locator = metadata.parentLocator;
  const table = new BlockTable(whole, metadata, { bat: regions.bat, taken }, locator !== undefined, options.cacheBytes);
  const parent = locator === undefined ? undefined : openParentOf(locator, options, depth);
  const disk = mappedDisk(whole, {
    structure: 'VHDX',
    sizeBytes: metadata.virtualBytes,
    locate: (offset, lengthBytes) => table.locate(offset, lengthBytes),
    // A disk that was made larger after its parent has zeros behind the parent's end.
    parent: parent === undefined ? undefined : { disk: parent, startBytes: 0 },
    owns: parent === undefined ? [whole] : [whole, parent],
  });
  const kind = locator !== undefined ? 'differencing' : metadata.leavesBlocksAllocated ? 'fixed' : 'dynamic';
  const { logicalSectorBytes, physicalSectorBytes, payloadBlockBytes, virtualDiskId } = metadata;
  const facts = { kind, logicalSectorBytes, physicalSectorBytes, payloadBlockBytes, virtualDiskId, replayed } as const;
  return { ...facts, dataWriteGuid: header.dataWriteGuid, ...disk };
}

function openParentOf(locator: ParentLocator, options: VhdxReadOptions, depth: number): VhdxDisk {
  if (options.openParent === undefined)
    throw new UnsupportedError('this VHDX holds only changes over a parent; convert or merge it first');
  if (depth >= maxParents)
    throw new FormatError('VHDX', 'parent locator', 0, `there are more than ${maxParents} parents`);
  const found = options.openParent(locator);
  const parent = openOrClose(found, options.cacheBytes, depth);
  if (parent.dataWriteGuid === locator.parentLinkage || parent.dataWriteGuid === locator.parentLinkage2) return parent;
  parent.close();
  throw new UnavailableError(
    `the parent of this VHDX has been written to since: its identity is ${parent.dataWriteGuid}, not ${locator.parentLinkage}`,
  );
}

function openOrClose({ file, openParent }: ParentFile, cacheBytes: number | undefined, depth: number): VhdxDisk {
  try {
    return open(
      file,
      { ...(openParent && { openParent }), ...(cacheBytes !== undefined && { cacheBytes }) },
      depth + 1,
    );
  } catch (error) {
    file.close();
    throw error;
  }
}

export const vhdxReader: DiskReader = {
  name: 'vhdx',
  what: 'a VHDX file',
  qemuName: 'vhdx',
  isNamed: (fileName) => hasExtension(fileName, vhdx.extensions),
  signatures: [{ magic: 'vhdxfile' }],
  open: (file, context) =>
    openVhdx(file, {
      openParent: (locator) => parentBeside(locator, context),
      ...(context.tableCacheBytes === undefined ? {} : { cacheBytes: context.tableCacheBytes }),
    }),
};

function parentBeside(locator: ParentLocator, context: ReaderContext): ParentFile {
  const names = [locator.relativePath, locator.absoluteWin32Path, locator.volumePath];
  const { file, context: next } = context.openBeside(spellingsOf(names.filter((name) => name !== undefined)));
  return { file, openParent: (further) => parentBeside(further, next) };
}
