/**
 * An empty differencing VHD over a synthesized one: no block is there, so that all of the disk is the parent's.
 *
 * ```
 * 0        512              1536
 * | footer | dynamic header | BAT, all unused | path for W2ru | path for W2ku | footer |
 * ```
 * The parent is named by its unique id, its timestamp, its plain name and two locators. Both hold the same relative path: an absolute one,
 * which W2ku is meant for, would be one of the machine that opens the file, which this one does not know. XenServer does the same.
 */
import type { ChildPlan } from '../format.ts';
import { sectorBytes } from '../geometry.ts';
import { SegmentMap } from '../segment-map.ts';
import { windowsSibling } from '../sibling-path.ts';
import {
  defaultBlockBytes,
  footerTimestamp,
  parentLocator,
  parentLocatorCount,
  parentNameBytes,
  tableBytes,
  tableOffset,
  virtualBytesOf,
  type VhdGeometry,
} from './layout.ts';
import { blockAllocationTable, dynamicHeaderBytes, footerBytes, uniqueIdOf } from './synthesize.ts';

const platformCodes = ['W2ru', 'W2ku'] as const;

/** @throws UsageError when the parent's name is none that Windows knows */
export function synthesizeVhdChild({ parent, parentName, identity }: ChildPlan<VhdGeometry>): SegmentMap {
  const sizeBytes = virtualBytesOf(parent);
  const blockCount = Math.ceil(sizeBytes / defaultBlockBytes);
  const ends = footerBytes('differencing', sizeBytes, identity);
  const pathsOffset = tableOffset + tableBytes(blockCount);
  const path = Buffer.from(windowsSibling(parentName), 'utf16le');
  const pathSectors = Math.ceil(path.length / sectorBytes);
  const paths = new Uint8Array(platformCodes.length * pathSectors * sectorBytes);
  const parentLocators = new Uint8Array(parentLocatorCount * parentLocator.sizeBytes);
  for (const [index, platformCode] of platformCodes.entries()) {
    const within = index * pathSectors * sectorBytes;
    const entry = {
      platformCode,
      platformDataSpace: pathSectors,
      platformDataLength: path.length,
      platformDataOffset: BigInt(pathsOffset + within),
    };
    parentLocator.encode(entry, parentLocators, index * parentLocator.sizeBytes);
    paths.set(path, within);
  }
  const parentUnicodeName = new Uint8Array(parentNameBytes);
  parentUnicodeName.set(Buffer.from(parentName, 'utf16le').swap16());
  const header = dynamicHeaderBytes(blockCount, defaultBlockBytes, {
    parentUniqueId: uniqueIdOf(parent.identity),
    parentTimestamp: footerTimestamp,
    parentUnicodeName,
    parentLocators,
  });
  return new SegmentMap([
    { kind: 'bytes', bytes: ends },
    { kind: 'bytes', bytes: header },
    blockAllocationTable(blockCount, defaultBlockBytes, []),
    { kind: 'bytes', bytes: paths },
    { kind: 'bytes', bytes: ends },
  ]);
}
