/**
 * An empty differencing VHDX over a synthesized one ([MS-VHDX] 2.6.2.6): no payload block is present, so that all of it is the parent's.
 *
 * ```
 * 0 ... 3 MiB   as in every file of ours, with the parent locator among the metadata items
 * 3 MiB         BAT: payload entries "not present", which here means the parent's
 * 3 MiB+BAT     sector bitmap blocks, all zeros: every sector is the parent's
 * ```
 * Payload blocks have 2 MiB, as Hyper-V makes them for differencing files whatever the parent's have: a small write then costs little.
 *
 * The sector bitmap blocks, 1 MiB for each 4 GiB of the disk, need not be there yet, and Hyper-V makes them when they are needed. But
 * libvhdi 20210425 reads the bitmap of a block that is not present too, at byte 0 of the file when there is none.
 *
 * The parent is named by its DataWriteGuid and by a relative path alone. A volume path or a Win32 path would be one of the machine that
 * opens the file, which this one does not know; where the relative path leads nowhere, a wrong one could lead to another file.
 */
import { MiB } from '../../base/units.ts';
import { namedGuid, nilGuid } from '../../bytes/guid.ts';
import { computedTable } from '../computed-table.ts';
import type { ChildPlan } from '../format.ts';
import { SegmentMap, type Segment } from '../segment-map.ts';
import { windowsSibling } from '../sibling-path.ts';
import { encodeHead } from './encode.ts';
import {
  batEntryBytes,
  batEntryCount,
  batIndexOfBitmap,
  batOffset,
  batRegionBytes,
  bitmapState,
  blocksOf,
  chunkRatio,
  hasParent,
  payloadBlockCount,
  putBatEntry,
  sectorBitmapBytes,
  type VhdxGeometry,
} from './layout.ts';
import { encodeParentLocator } from './parent-locator.ts';

const payloadBlockBytes = 2 * MiB;
/** 4 TiB of disk. The child of a larger one starts without, rather than with gigabytes of zeros. */
const maxBitmapBlocks = 1024;

/** @throws UsageError when the parent's name is none that Windows knows */
export function synthesizeVhdxChild({ parent, parentName, identity }: ChildPlan<VhdxGeometry>): SegmentMap {
  const blocks = { ...blocksOf(parent), payloadBlockBytes };
  const batBytes = batRegionBytes(batEntryCount(blocks, true));
  const parentLocator = encodeParentLocator({
    parent_linkage: `{${parent.dataWriteGuid}}`,
    parent_linkage2: `{${nilGuid}}`,
    relative_path: windowsSibling(parentName),
  });
  const pieces = encodeHead(
    {
      ...blocks,
      physicalSectorBytes: parent.physicalSectorBytes,
      fileWriteGuid: namedGuid(identity, 'vhdx file write'),
      dataWriteGuid: namedGuid(identity, 'vhdx data write'),
      // To the guest it is the same disk.
      virtualDiskId: parent.virtualDiskId,
      parameterFlags: hasParent,
      parentLocator,
    },
    batBytes,
  );
  const ratio = chunkRatio(blocks);
  const chunks = Math.ceil(payloadBlockCount(blocks) / ratio);
  const bitmapBlocks = chunks <= maxBitmapBlocks ? chunks : 0;
  pieces.add(emptyBat(batBytes, ratio, bitmapBlocks));
  pieces.add({ kind: 'zeros', lengthBytes: bitmapBlocks * sectorBitmapBytes });
  return new SegmentMap(pieces.segments);
}

/** Only the entries of sector bitmap blocks, which lie behind the BAT in order, are not zero. */
function emptyBat(batBytes: number, ratio: number, bitmapBlocks: number): Segment {
  if (bitmapBlocks === 0) return { kind: 'zeros', lengthBytes: batBytes };
  return computedTable(batBytes, batEntryBytes, (view, first, count) => {
    const end = Math.min(bitmapBlocks, Math.ceil((first + count - ratio) / (ratio + 1)));
    for (let chunk = Math.max(0, Math.ceil((first - ratio) / (ratio + 1))); chunk < end; chunk++) {
      const at = (batIndexOfBitmap(chunk, ratio) - first) * batEntryBytes;
      putBatEntry(view, at, bitmapState.present, batOffset + batBytes + chunk * sectorBitmapBytes);
    }
  });
}
