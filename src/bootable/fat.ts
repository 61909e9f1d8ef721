/**
 * A FAT16 or FAT32 file system with a few files, made in one pass (Microsoft's FAT specification 1.03): what an EFI system partition needs.
 * Every file and folder is one run of clusters; names are 8.3. The same plan gives the same bytes.
 *
 *     reserved sectors | FAT | FAT | root folder (FAT16) | clusters: folders, then files
 */
import { assert, CapacityError } from '../base/errors.ts';
import {
  bootSignature,
  fat16BootSector,
  fat32BootSector,
  folderEntry,
  folderEntryBytes,
  infoSector,
} from '../filesystem/fat/layout.ts';
import { sectorBytes } from '../volume/table-layout.ts';

/** Fewer clusters than this is FAT16, from 4085 on; more is FAT32. Readers go by nothing else. */
const minFat32Clusters = 65_525;
const minFat16Clusters = 4_085;
const fat16RootEntries = 512;
const endOfChain = 0x0fff_ffff;
const mediaFixed = 0xf8;
const archiveAttribute = 0x20;
const folderAttribute = 0x10;
const volumeLabelAttribute = 0x08;
const volumeLabel = 'VENEER ESP ';
/** 1 January 2025: a date that is one, and the same for all. */
const fixedDate = 0x5a21;
const fat32ReservedSectors = 32;
const fat32InfoSector = 1;
const fat32BackupSector = 6;

export interface FatRequest {
  readonly sizeBytes: number;
  /** Where the partition starts on its disk. */
  readonly startLba: number;
  readonly serial: number;
  /** Paths with slashes; each part is 8.3 in upper case. */
  readonly files: ReadonlyArray<{ readonly path: string; readonly lengthBytes: number }>;
}

export interface FatPlan {
  /** All structures that are not zeros, in order of their offsets in the partition. */
  readonly structures: ReadonlyArray<{ readonly offset: number; readonly bytes: Uint8Array }>;
  /** Offset of each file's bytes in the partition, in the order of the request. */
  readonly fileOffsets: readonly number[];
}

interface Shape {
  readonly isFat32: boolean;
  readonly sectorsPerCluster: number;
  readonly reservedSectors: number;
  readonly fatSectors: number;
  readonly rootSectors: number;
  readonly clusters: number;
  /** Of cluster 2, in sectors. */
  readonly firstData: number;
}

/** A file or folder, and its run of clusters. */
interface Node {
  readonly name: string;
  readonly children: Node[] | undefined;
  lengthBytes: number;
  firstCluster: number;
}

/** @throws CapacityError when the files do not fit */
export function planFat(request: FatRequest): FatPlan {
  const shape = shapeOf(request.sizeBytes / sectorBytes);
  const clusterBytes = shape.sectorsPerCluster * sectorBytes;
  const root: Node = { name: '', children: [], lengthBytes: 0, firstCluster: 0 };
  const files = request.files.map((file) => addFile(root, file.path, file.lengthBytes));
  const folders = foldersOf(root);
  for (const folder of folders) {
    // The root has its label, the others "." and "..".
    const entries = (folder.children?.length ?? 0) + (folder === root ? 1 : 2);
    folder.lengthBytes = entries * folderEntryBytes;
  }

  const fat: number[] = [(endOfChain & ~0xff) | mediaFixed, endOfChain];
  const place = (node: Node): void => {
    if (node.lengthBytes === 0) return;
    node.firstCluster = fat.length;
    const count = Math.ceil(node.lengthBytes / clusterBytes);
    if (fat.length + count > shape.clusters + 2) {
      throw new CapacityError(`the files do not fit an EFI system partition of ${request.sizeBytes} bytes`);
    }
    for (let index = 1; index < count; index++) fat.push(fat.length + 1);
    fat.push(endOfChain);
  };
  for (const folder of folders) if (folder !== root || shape.isFat32) place(folder);
  for (const file of files) place(file);

  const offsetOf = (cluster: number): number =>
    (shape.firstData + (cluster - 2) * shape.sectorsPerCluster) * sectorBytes;
  const rootOffset = shape.isFat32 ? offsetOf(root.firstCluster) : (shape.firstData - shape.rootSectors) * sectorBytes;
  const fatBytes = encodeFat(fat, shape.isFat32);
  return {
    structures: [
      ...bootSectors(request, shape, root.firstCluster, fat.length),
      ...[0, 1].map((copy) => ({
        offset: (shape.reservedSectors + copy * shape.fatSectors) * sectorBytes,
        bytes: fatBytes,
      })),
      ...folders.map((folder) => ({
        offset: folder === root ? rootOffset : offsetOf(folder.firstCluster),
        bytes: encodeFolder(folder, folder === root ? undefined : parentOf(folders, folder), root),
      })),
    ],
    fileOffsets: files.map((file) => offsetOf(file.firstCluster)),
  };
}

function shapeOf(totalSectors: number): Shape {
  for (const isFat32 of [true, false]) {
    for (const sectorsPerCluster of [1, 2, 4, 8, 16, 32, 64]) {
      const shape = tryShape(totalSectors, isFat32, sectorsPerCluster);
      const fits = isFat32
        ? shape.clusters >= minFat32Clusters && shape.clusters < 2 ** 20
        : shape.clusters >= minFat16Clusters && shape.clusters < minFat32Clusters;
      if (fits) return shape;
    }
  }
  throw new CapacityError(`an EFI system partition of ${totalSectors} sectors is too small or too large`);
}

function tryShape(totalSectors: number, isFat32: boolean, sectorsPerCluster: number): Shape {
  const reservedSectors = isFat32 ? fat32ReservedSectors : 1;
  const rootSectors = isFat32 ? 0 : (fat16RootEntries * folderEntryBytes) / sectorBytes;
  const bytesPerEntry = isFat32 ? 4 : 2;
  // Enough for all clusters that there would be without any FAT.
  const most = Math.floor((totalSectors - reservedSectors - rootSectors) / sectorsPerCluster) + 2;
  const fatSectors = Math.ceil((most * bytesPerEntry) / sectorBytes);
  const firstData = reservedSectors + 2 * fatSectors + rootSectors;
  const clusters = Math.floor((totalSectors - firstData) / sectorsPerCluster);
  return { isFat32, sectorsPerCluster, reservedSectors, fatSectors, rootSectors, clusters, firstData };
}

function addFile(root: Node, filePath: string, lengthBytes: number): Node {
  const parts = filePath.split('/').filter((part) => part !== '');
  let folder = root;
  for (const [index, part] of parts.entries()) {
    const isFile = index === parts.length - 1;
    let child = folder.children?.find((node) => node.name === part);
    if (child === undefined) {
      child = { name: part, children: isFile ? undefined : [], lengthBytes: isFile ? lengthBytes : 0, firstCluster: 0 };
      folder.children?.push(child);
    }
    folder = child;
  }
  assert(folder.children === undefined, `${filePath} is a folder`);
  return folder;
}

/** The root first, each before what is in it. */
function foldersOf(folder: Node): Node[] {
  return [folder, ...(folder.children ?? []).filter((node) => node.children !== undefined).flatMap(foldersOf)];
}

function parentOf(folders: readonly Node[], child: Node): Node | undefined {
  return folders.find((folder) => folder.children?.includes(child) === true);
}

function encodeFat(fat: readonly number[], isFat32: boolean): Uint8Array {
  const encoded = new DataView(new ArrayBuffer(fat.length * (isFat32 ? 4 : 2)));
  for (const [cluster, next] of fat.entries()) {
    if (isFat32) encoded.setUint32(cluster * 4, next, true);
    else encoded.setUint16(cluster * 2, next & 0xffff, true);
  }
  return new Uint8Array(encoded.buffer);
}

function encodeFolder(folder: Node, parent: Node | undefined, root: Node): Uint8Array {
  const rows: Uint8Array[] = [];
  const add = (name: string, attributes: number, cluster: number, sizeBytes: number): void => {
    rows.push(
      folderEntry.encode({
        name: Buffer.from(name, 'latin1'),
        attributes,
        caseFlags: 0,
        createdTenths: 0,
        createdTime: 0,
        createdDate: fixedDate,
        accessedDate: fixedDate,
        clusterHigh: Math.floor(cluster / 0x1_0000),
        changedTime: 0,
        changedDate: fixedDate,
        clusterLow: cluster & 0xffff,
        sizeBytes,
      }),
    );
  };
  if (parent === undefined) {
    add(volumeLabel, volumeLabelAttribute, 0, 0);
  } else {
    add('.          ', folderAttribute, folder.firstCluster, 0);
    // The root is named 0 there, wherever it is.
    add('..         ', folderAttribute, parent === root ? 0 : parent.firstCluster, 0);
  }
  for (const node of folder.children ?? []) {
    const isFolder = node.children !== undefined;
    const attribute = isFolder ? folderAttribute : archiveAttribute;
    add(shortName(node.name), attribute, node.firstCluster, isFolder ? 0 : node.lengthBytes);
  }
  return Buffer.concat(rows);
}

function shortName(name: string): string {
  const match = /^([A-Z0-9_-]{1,8})(?:\.([A-Z0-9_-]{1,3}))?$/.exec(name);
  assert(match !== null, `"${name}" is no 8.3 name`);
  return (match[1] ?? '').padEnd(8) + (match[2] ?? '').padEnd(3);
}

function bootSectors(
  request: FatRequest,
  shape: Shape,
  rootCluster: number,
  nextFree: number,
): { offset: number; bytes: Uint8Array }[] {
  const totalSectors = request.sizeBytes / sectorBytes;
  const isSmall = !shape.isFat32 && totalSectors < 0x1_0000;
  const common = {
    jump: Uint8Array.of(0xeb, shape.isFat32 ? 0x58 : 0x3c, 0x90),
    oemName: 'VENEER  ',
    bytesPerSector: sectorBytes,
    sectorsPerCluster: shape.sectorsPerCluster,
    reservedSectors: shape.reservedSectors,
    fatCount: 2,
    rootEntries: shape.isFat32 ? 0 : fat16RootEntries,
    totalSectors16: isSmall ? totalSectors : 0,
    media: mediaFixed,
    sectorsPerFat16: shape.isFat32 ? 0 : shape.fatSectors,
    sectorsPerTrack: 63,
    heads: 255,
    hiddenSectors: request.startLba,
    totalSectors32: isSmall ? 0 : totalSectors,
    driveNumber: 0x80,
    extendedSignature: 0x29,
    serial: request.serial,
    label: Buffer.from(volumeLabel, 'latin1'),
    signature: bootSignature,
  };
  if (!shape.isFat32) return [{ offset: 0, bytes: fat16BootSector.encode({ ...common, type: 'FAT16   ' }) }];
  const boot = fat32BootSector.encode({
    ...common,
    type: 'FAT32   ',
    sectorsPerFat32: shape.fatSectors,
    flags: 0,
    version: 0,
    rootCluster,
    infoSector: fat32InfoSector,
    backupSector: fat32BackupSector,
  });
  const info = infoSector.encode({ freeClusters: shape.clusters + 2 - nextFree, nextFree, trail: 0xaa55_0000 });
  return [0, fat32BackupSector].flatMap((at) => [
    { offset: at * sectorBytes, bytes: boot },
    { offset: (at + fat32InfoSector) * sectorBytes, bytes: info },
  ]);
}
