/** VMDK files from elsewhere as disks: flat, sparse, split and stream-optimized ones, and what was made over a parent. */
import { FormatError, UnsupportedError } from '../../base/errors.ts';
import { nameOfBytes } from '../../base/names.ts';
import { closeAll, type Closable } from '../../base/ownership.ts';
import { concatDisks } from '../../disk/concat.ts';
import type { Disk } from '../../disk/disk.ts';
import { sliceDisk } from '../../disk/slice.ts';
import { zeroDisk } from '../../disk/zero.ts';
import { mappedDisk } from '../mapped-disk.ts';
import {
  checkInside,
  hasExtension,
  openParentOf,
  readInside,
  type DiskReader,
  type NativeDisk,
  type ReaderOptions,
} from '../reader.ts';
import { isDescriptor, parseDescriptor, type DescribedExtent, type Descriptor } from './descriptor.ts';
import { maxDescriptorBytes, maxFlatDiskBytes } from './layout.ts';
import { openSparseExtent, type SparseExtent } from './sparse-extent.ts';
import { vmdk } from './format.ts';

const structure = 'VMDK';

export interface VmdkReaderOptions extends ReaderOptions {
  /** Opens an extent's file by its plain name, from the descriptor's folder. The reader closes what it returns. */
  readonly openExtent?: (fileName: string) => Disk;
}

/**
 * The disk that a VMDK holds. `file` is a descriptor, or a sparse file with a descriptor in it. On success the disk owns `file`; on
 * an error the caller still does.
 * @throws FormatError, UnsupportedError when the files are not a VMDK that can be read
 */
export function openVmdk(file: Disk, options: VmdkReaderOptions = {}): NativeDisk {
  const magic = Buffer.from(readInside(file, structure, 'magic', 0, 4)).toString('latin1');
  if (magic === 'COWD') throw new UnsupportedError("VMDK: ESXi's old sparse extents; convert the disk with vmkfstools");
  const opened: Closable[] = [];
  try {
    const disk = magic === 'KDMV' ? openMonolithic(file, options, opened) : openDescribed(file, options, opened);
    return {
      ...disk,
      close() {
        closeAll([file, ...opened]);
      },
    };
  } catch (error) {
    closeAll(opened);
    throw error;
  }
}

/** A sparse file that holds its own descriptor. What the descriptor calls the file does not matter. */
function openMonolithic(file: Disk, options: VmdkReaderOptions, opened: Closable[]): NativeDisk {
  const extent = openSparseExtent(file, options.tableCacheBytes);
  if (extent.descriptor === undefined) {
    throw new UnsupportedError('VMDK: one part of a split disk; open the file that describes it');
  }
  const descriptor = parseDescriptor(extent.descriptor);
  if (descriptor.extents.length > 1) {
    throw new UnsupportedError(`VMDK: a sparse file that describes ${descriptor.extents.length} extents`);
  }
  const parent = openParent(descriptor, options, opened);
  return { ...mapExtent(file, extent, parent, 0), identity: descriptor.contentId };
}

function openDescribed(file: Disk, options: VmdkReaderOptions, opened: Closable[]): NativeDisk {
  if (file.sizeBytes > maxDescriptorBytes) {
    throw new FormatError(structure, 'magic', 0, 'is neither a descriptor nor a sparse extent');
  }
  const text = nameOfBytes(readInside(file, structure, 'descriptor', 0, file.sizeBytes));
  if (!isDescriptor(text)) {
    throw new FormatError(structure, 'magic', 0, 'is neither a descriptor nor a sparse extent');
  }
  const descriptor = parseDescriptor(text);
  let sizeBytes = 0;
  for (const extent of descriptor.extents) sizeBytes += extent.sizeBytes;
  if (sizeBytes === 0 || sizeBytes > maxFlatDiskBytes) {
    throw new FormatError(structure, 'extents', 0, `make a disk of ${sizeBytes} bytes`);
  }
  const parent = openParent(descriptor, options, opened);
  const parts: Disk[] = [];
  let startBytes = 0;
  for (const extent of descriptor.extents) {
    parts.push(openExtent(extent, startBytes, parent, options, opened));
    startBytes += extent.sizeBytes;
  }
  return { ...concatDisks(parts), identity: descriptor.contentId };
}

function openParent(descriptor: Descriptor, options: VmdkReaderOptions, opened: Closable[]): Disk | undefined {
  if (descriptor.parent === undefined) return undefined;
  const { name, contentId } = descriptor.parent;
  if (name !== undefined && (/^[a-z][a-z0-9+.-]+:/i.test(name) || name.includes('\0'))) {
    throw new UnsupportedError(`VMDK: the parent ${JSON.stringify(name.slice(0, 80))} is not a plain file`);
  }
  const names = name === undefined ? [] : [name.replaceAll('\\', '/')];
  const parent = openParentOf(structure, { names, identity: contentId, format: 'vmdk' }, options);
  opened.push(parent);
  return parent;
}

function openExtent(
  extent: DescribedExtent,
  startBytes: number,
  parent: Disk | undefined,
  options: VmdkReaderOptions,
  opened: Closable[],
): Disk {
  if (extent.type === 'ZERO') return zeroDisk(extent.sizeBytes);
  if (options.openExtent === undefined) {
    throw new UnsupportedError(`VMDK: the extent ${extent.fileName} cannot be opened here`);
  }
  const file = options.openExtent(extent.fileName);
  opened.push(file);
  if (extent.type === 'FLAT') {
    checkInside(file, `VMDK extent ${extent.fileName}`, 'disk', extent.offsetBytes, extent.sizeBytes);
    return sliceDisk(file, extent.offsetBytes, extent.sizeBytes);
  }
  const sparse = openSparseExtent(file, options.tableCacheBytes);
  if (sparse.sizeBytes !== extent.sizeBytes) {
    throw new FormatError(structure, 'extent', 0, `${extent.fileName} has ${sparse.sizeBytes} bytes of the disk`);
  }
  return mapExtent(file, sparse, parent, startBytes);
}

function mapExtent(file: Disk, extent: SparseExtent, parent: Disk | undefined, startBytes: number): Disk {
  return mappedDisk(file, {
    structure,
    sizeBytes: extent.sizeBytes,
    locate: extent.locate(parent === undefined ? 'zero' : 'parent'),
    parent: parent === undefined ? undefined : { disk: parent, startBytes },
    owns: [],
  });
}

export const vmdkReader: DiskReader = {
  name: 'vmdk',
  what: 'a VMDK file',
  qemuName: 'vmdk',
  isNamed: (fileName) => hasExtension(fileName, vmdk.extensions),
  signatures: [{ magic: 'KDMV' }],
  describes: isDescriptor,
  open: (file, context) =>
    openVmdk(file, {
      depth: context.depth,
      openParent: (reference) => context.openParent(reference),
      openExtent: (name) => context.openBeside([name]).file,
      ...(context.tableCacheBytes === undefined ? {} : { tableCacheBytes: context.tableCacheBytes }),
    }),
};
