/** The text that describes a VMDK: what kind it is, of which extents it consists, and the disk's identity. */
import { UsageError } from '../../base/errors.ts';
import { namedGuid, type Guid } from '../../bytes/guid.ts';
import { sectorBytes } from '../geometry.ts';
import { descriptorSignature, noParentCid } from './layout.ts';

export interface DescriptorFacts {
  readonly createType: 'monolithicFlat' | 'monolithicSparse';
  readonly extentName: string;
  readonly sizeBytes: number;
  readonly identity: Guid;
}

/**
 * A descriptor of one extent.
 * @throws UsageError when the extent's name cannot be written inside quotes
 */
export function encodeDescriptor(facts: DescriptorFacts): Uint8Array {
  const { createType, extentName, sizeBytes, identity } = facts;
  if ([...extentName].some((character) => character < ' ' || character === '"')) {
    throw new UsageError(`${JSON.stringify(extentName)} cannot be the name of a VMDK's extent`);
  }
  const sectors = sizeBytes / sectorBytes;
  const extent =
    createType === 'monolithicFlat' ? `RW ${sectors} FLAT "${extentName}" 0` : `RW ${sectors} SPARSE "${extentName}"`;
  const longContentId = contentId(identity);
  const uuid = (purpose: string): string => namedGuid(identity, `VMDK ${purpose}`);
  return Buffer.from(
    [
      descriptorSignature,
      'version=1',
      'encoding="UTF-8"',
      `CID=${longContentId.slice(-8)}`,
      `parentCID=${noParentCid}`,
      `createType="${createType}"`,
      '',
      '# Extent description',
      extent,
      '',
      '# The Disk Data Base',
      '#DDB',
      '',
      'ddb.adapterType = "lsilogic"',
      ...geometryLines(sectors),
      `ddb.longContentID = "${longContentId}"`,
      `ddb.uuid.image = "${uuid('image')}"`,
      `ddb.uuid.modification = "${uuid('modification')}"`,
      'ddb.uuid.parent = "00000000-0000-0000-0000-000000000000"',
      'ddb.uuid.parentmodification = "00000000-0000-0000-0000-000000000000"',
      'ddb.virtualHWVersion = "4"',
      '',
    ].join('\n'),
  );
}

/** Geometry of a SCSI adapter, by the rule of VMware's BusLogic and LSI Logic devices. */
function geometryLines(sectors: number): string[] {
  const oneGiB = 2 ** 30 / sectorBytes;
  const [heads, perTrack] = sectors < oneGiB ? [64, 32] : sectors < 2 * oneGiB ? [128, 32] : [255, 63];
  return [
    `ddb.geometry.cylinders = "${Math.max(1, Math.floor(sectors / (heads * perTrack)))}"`,
    `ddb.geometry.heads = "${heads}"`,
    `ddb.geometry.sectors = "${perTrack}"`,
  ];
}

/** 32 hexadecimal digits, the last eight of which are the CID; those of "no parent" and "unset" are avoided. */
function contentId(identity: Guid): string {
  const digits = namedGuid(identity, 'VMDK content').replaceAll('-', '');
  return /ffffff(ff|fe)$/.test(digits) ? `${digits.slice(0, -8)}00000001` : digits;
}
