/** The text that describes a VMDK: what kind it is, of which extents it consists, and the disk's identity. */
import { FormatError, UnsupportedError, UsageError } from '../../base/errors.ts';
import { namedGuid, nilGuid, type Guid } from '../../bytes/guid.ts';
import { sectorBytes } from '../geometry.ts';
import { plainSibling, qemuSibling } from '../sibling-path.ts';
import { descriptorSignature, maxExtents, noParentCid } from './layout.ts';

export interface DescriptorFacts {
  readonly createType: 'monolithicFlat' | 'monolithicSparse';
  readonly extentName: string;
  readonly sizeBytes: number;
  readonly identity: Guid;
  /** Of a disk that holds only changes: the identity of the one below, and its descriptor's file as a path. */
  readonly parent?: { readonly identity: Guid; readonly path: string };
}

/**
 * A descriptor of one extent.
 * @throws UsageError when a name cannot be written inside quotes, or not in UTF-8
 */
export function encodeDescriptor(facts: DescriptorFacts): Uint8Array {
  const { createType, extentName, sizeBytes, identity, parent } = facts;
  for (const name of [extentName, parent?.path ?? '']) {
    if (/["\r\n]/.test(name) || !name.isWellFormed())
      throw new UsageError(`"${name}" cannot be written in a VMDK's descriptor; rename the file`);
  }
  const sectors = sizeBytes / sectorBytes;
  const named = qemuSibling(extentName);
  const extent =
    createType === 'monolithicFlat' ? `RW ${sectors} FLAT "${named}" 0` : `RW ${sectors} SPARSE "${named}"`;
  const longContentId = contentId(identity);
  const uuid = (of: Guid | undefined, purpose: string): Guid =>
    of === undefined ? nilGuid : namedGuid(of, `VMDK ${purpose}`);
  return Buffer.from(
    [
      descriptorSignature,
      'version=1',
      'encoding="UTF-8"',
      `CID=${longContentId.slice(-8)}`,
      `parentCID=${parent === undefined ? noParentCid : contentId(parent.identity).slice(-8)}`,
      `createType="${createType}"`,
      ...(parent === undefined ? [] : [`parentFileNameHint="${parent.path}"`]),
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
      `ddb.uuid.image = "${uuid(identity, 'image')}"`,
      `ddb.uuid.modification = "${uuid(identity, 'modification')}"`,
      `ddb.uuid.parent = "${uuid(parent?.identity, 'image')}"`,
      `ddb.uuid.parentmodification = "${uuid(parent?.identity, 'modification')}"`,
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

export interface DescribedExtent {
  readonly access: 'RW' | 'RDONLY';
  readonly sizeBytes: number;
  readonly type: 'FLAT' | 'SPARSE' | 'ZERO';
  /** The name of a file in the same folder; empty for ZERO. */
  readonly fileName: string;
  /** Of a flat extent: where in its file it begins. */
  readonly offsetBytes: number;
}

export interface Descriptor {
  readonly createType: string;
  /** Eight hexadecimal digits that change whenever the disk is written. */
  readonly contentId: string;
  readonly parent: { readonly contentId: string; readonly name: string | undefined } | undefined;
  readonly extents: readonly DescribedExtent[];
}

/** Whether a text is a descriptor. Every writer begins with the signature; who edits one may put comments or a byte order mark before it. */
export function isDescriptor(text: string): boolean {
  const plain = text.replace(/^\uFEFF/, '');
  if (plain.startsWith(descriptorSignature)) return true;
  return /^[ \t]*createType[ \t]*=/im.test(plain) || /^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t]+\d+[ \t]+[A-Z]/m.test(plain);
}

/**
 * Reads a descriptor: the text up to the zeros that hypervisors fill its file with.
 * @throws FormatError when a line of it is none that belongs there
 * @throws UnsupportedError for kinds of extents that are not read, and for extents outside the folder
 */
export function parseDescriptor(filled: string): Descriptor {
  const text = filled.split('\0', 1)[0] ?? '';
  if (!isDescriptor(text)) throw wrong('signature', 1, 'is not there');
  const settings = new Map<string, string>();
  const extents: DescribedExtent[] = [];
  for (const [index, raw] of text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const setting = /^([A-Za-z][\w.]*)\s*=\s*(?:"([^"]*)"|(.*))$/.exec(line);
    if (setting !== null) settings.set((setting[1] ?? '').toLowerCase(), setting[2] ?? setting[3] ?? '');
    else extents.push(parseExtent(line, index + 1));
    if (extents.length > maxExtents) throw wrong('extents', index + 1, `are more than ${maxExtents}`);
  }
  const createType = settings.get('createtype') ?? '';
  if (createType === '') throw wrong('createType', 1, 'is not there');
  const parentCid = contentIdOf(settings.get('parentcid') ?? noParentCid, 'parentCID');
  return {
    createType,
    contentId: contentIdOf(settings.get('cid') ?? '', 'CID'),
    parent: parentCid === noParentCid ? undefined : { contentId: parentCid, name: settings.get('parentfilenamehint') },
    extents,
  };
}

/** Whether the disk lies in the same places of the same files by both. */
export function describesSameExtents(one: string, other: string): boolean {
  try {
    const [first, second] = [parseDescriptor(one), parseDescriptor(other)];
    const isWhole = first.parent === undefined && second.parent === undefined;
    return isWhole && JSON.stringify(first.extents) === JSON.stringify(second.extents);
  } catch (error) {
    if (error instanceof FormatError || error instanceof UnsupportedError) return false;
    throw error;
  }
}

function contentIdOf(text: string, field: string): string {
  if (!/^[0-9a-f]{1,8}$/i.test(text)) throw wrong(field, 1, `${JSON.stringify(text.slice(0, 80))} is not a content id`);
  return text.toLowerCase().padStart(8, '0');
}

/** `RW 2048 FLAT "vm-flat.vmdk" 0` */
function parseExtent(line: string, lineNumber: number): DescribedExtent {
  const [, access = '', sectors = '', type = '', written = '', offset = '0'] =
    /^(RW|RDONLY|NOACCESS)\s+(\d{1,15})\s+([A-Z]+)(?:\s+"([^"]*)"(?:\s+(\d{1,15}))?)?(?:\s.*)?$/.exec(line) ?? [];
  if (access === '') throw wrong('line', lineNumber, `${JSON.stringify(line.slice(0, 80))} is not understood`);
  const shape = type === 'VMFS' ? 'FLAT' : type;
  if (access === 'NOACCESS' || (shape !== 'FLAT' && shape !== 'SPARSE' && shape !== 'ZERO')) {
    throw new UnsupportedError(
      `VMDK: an extent of type ${access} ${type}; convert the disk with qemu-img or vmkfstools`,
    );
  }
  const fileName = shape === 'ZERO' ? '' : plainSibling(written);
  if (fileName === undefined) {
    throw new UnsupportedError(
      `VMDK: the extent ${JSON.stringify(written.slice(0, 80))} is not a file in the same folder`,
    );
  }
  const sizeBytes = Number(sectors) * sectorBytes;
  const offsetBytes = Number(offset) * sectorBytes;
  if (sizeBytes === 0 || !Number.isSafeInteger(sizeBytes + offsetBytes)) {
    throw wrong('extent', lineNumber, `of ${sectors} sectors at ${offset}`);
  }
  return { access: access === 'RW' ? 'RW' : 'RDONLY', sizeBytes, type: shape, fileName, offsetBytes };
}

function wrong(field: string, lineNumber: number, detail: string): FormatError {
  return new FormatError('VMDK descriptor', field, 0, `line ${lineNumber}: ${detail}`);
}
