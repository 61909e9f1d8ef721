/**
 * What a file is by its content: every container of a disk that one meets, those that are read and those that are not. Its name plays no part.
 *
 * Nothing found means that the bytes are the disk: partition tables, file systems, ISO 9660, LUKS and other encryption of disks are raw.
 */
import type { Disk } from '../disk/disk.ts';
import type { DiskReader, Signature } from '../native/reader.ts';
import { maxDescriptorBytes } from '../native/vmdk/layout.ts';
import { sourceFormats } from './formats.ts';
import { ownContent } from './own-content.ts';

export interface Content {
  /** For messages: "a qcow2 file". */
  readonly what: string;
  /** What it is read as; undefined for what is not read. */
  readonly format?: DiskReader;
  /** What to do with what is not read. */
  readonly instead?: string;
  /** One of our own files: never the disk itself. */
  readonly isOurs?: boolean;
}

interface KnownSignature extends Content, Signature {}

const convert = 'convert it with qemu-img';
const unpack = 'unpack it';
const restore = 'restore it with the program that made it';

const unread = (magic: string, what: string, instead: string, at = 0): KnownSignature => ({ magic, at, what, instead });
const packed = (magic: string, what: string, program: string): KnownSignature =>
  unread(magic, `compressed with ${what}`, `decompress it first (${program})`);

const footerBytes = 512;

/** The more telling come first. */
const signatures: readonly KnownSignature[] = [
  ...sourceFormats.flatMap((format) =>
    format.signatures.map((signature) => ({ ...signature, format, what: format.what })),
  ),
  unread('QFI\xfb\0\0\0\x01', 'a qcow file of version 1', convert),
  unread('QFI\xfb', 'a qcow2 file of an unknown version', convert),
  unread('COWD', 'an old sparse VMDK of ESXi', 'convert it with vmkfstools'),
  unread('\xbe\xba\xfe\xca\0\0\0\0', 'a SESparse VMDK of ESXi', 'convert it with vmkfstools'),
  unread('WithoutFreeSpace', 'a Parallels disk', convert),
  unread('WithouFreSpacExt', 'a Parallels disk', convert),
  unread('Bochs Virtual HD Image', 'a Bochs disk', convert),
  unread('koly', 'a DMG file', convert, -footerBytes),
  unread('EVF\x09\r\n\xff\0', 'an EWF file (E01)', 'mount it with ewfmount and give the file that shows'),
  unread('EVF2\r\n\x81\0', 'an EWF file (Ex01)', 'mount it with ewfmount and give the file that shows'),
  unread('LVF\x09\r\n\xff\0', 'an EWF file of files (L01)', restore),
  unread('LEF2\r\n\x81\0', 'an EWF file of files (Lx01)', restore),
  unread('AFF10\r\n\0', 'an AFF file', 'mount it with affuse and give the file that shows'),
  unread('VMA\0', 'a backup of Proxmox (VMA)', 'take it apart with vma extract'),
  unread('partclone-image', 'an image of partclone', 'restore it with partclone.restore'),
  unread('rbd image v', 'an export of Ceph RBD', 'import it with rbd import'),
  unread('rbd diff v', 'an export of Ceph RBD', 'import it with rbd import-diff'),
  unread('btrfs-stream\0', 'a stream of btrfs send', 'receive it first'),
  unread('\x3a\xff\x26\xed', 'a sparse image of Android', 'convert it with simg2img'),
  unread('\x2f\x7f\x41\xed\x91\xfd\x0f\xcd', 'an index of Proxmox Backup Server', restore),
  unread('\x42\xab\x38\x07\xbe\x83\x70\xa1', 'a chunk of Proxmox Backup Server', restore),
  unread('\x31\xb9\x58\x42\x6f\xb6\xa3\x7f', 'a chunk of Proxmox Backup Server', restore),
  unread('MSWIM\0\0\0', 'a WIM file', 'apply it with wimapply'),
  packed('\x1f\x8b\x08', 'gzip', 'gzip -d'),
  packed('\x1f\x9d\x90', 'compress', 'gzip -d'),
  packed('\xfd7zXZ\0', 'xz', 'xz -d'),
  packed('\x5d\0\0\x80\0', 'lzma', 'xz -d'),
  packed('\x5d\0\0\0\x04', 'lzma', 'xz -d'),
  packed('\x28\xb5\x2f\xfd', 'zstd', 'zstd -d'),
  packed('\x5e\x2a\x4d\x18', 'zstd', 'zstd -d'),
  packed('\x04\x22\x4d\x18', 'lz4', 'lz4 -d'),
  packed('\x89LZO\0\r\n\x1a\n', 'lzop', 'lzop -d'),
  ...Array.from({ length: 9 }, (_, level) => packed(`BZh${level + 1}1AY&SY`, 'bzip2', 'bzip2 -d')),
  packed('LZIP\x01', 'lzip', 'lzip -d'),
  packed('LRZI', 'lrzip', 'lrzip -d'),
  unread('PK\x03\x04', 'a ZIP archive', unpack),
  unread('PK\x05\x06', 'a ZIP archive', unpack),
  unread('7z\xbc\xaf\x27\x1c', 'a 7z archive', unpack),
  unread('Rar!\x1a\x07', 'a RAR archive', unpack),
  unread('070701', 'a cpio archive', unpack),
  { magic: 'VENEERMP', what: 'the map of what a guest wrote', instead: 'image its disk under the mount', isOurs: true },
];

const headBytes = 4096;

/** What the file may be, the most telling first; nothing where it is none of the containers. Reads a few KiB. */
export function probe(file: Disk): Content[] {
  const head = readAt(file, 0, headBytes);
  const tail = readAt(file, file.sizeBytes - footerBytes, footerBytes);
  const found: Content[] = [...oursOf(head), ...tarOf(head), ...textOf(file, head)];
  for (const signature of signatures) {
    const { magic, at = 0 } = signature;
    const bytes = at < 0 ? tail.subarray(Math.max(0, tail.length + at)) : head.subarray(at);
    if (!startsWith(bytes, magic)) continue;
    if (!found.some(({ what }) => what === signature.what)) found.push(signature);
  }
  return found;
}

function oursOf(head: Uint8Array): Content[] {
  const own = ownContent(head);
  if (own === 'image') {
    const instead = 'veneer image extract writes its disk to a file, and a plugin file shows it under a mount';
    return [{ what: 'an image of Veneer itself', instead, isOurs: true }];
  }
  if (own === undefined) return [];
  const instead = 'mount its folder (veneer mount FOLDER MOUNTPOINT) and give the file of that name under the mount';
  return [{ what: 'a plugin file, a text that stands for a disk', instead, isOurs: true }];
}

/** [POSIX ustar]: 512 bytes, the checksum at 148, over all of them with itself as spaces. */
function tarOf(head: Uint8Array): Content[] {
  if (head.length < 512) return [];
  const given = /^ *([0-7]+)[ \0]/.exec(latin1(head.subarray(148, 156)))?.[1];
  let sum = 0;
  for (let at = 0; at < 512; at++) sum += at >= 148 && at < 156 ? 0x20 : (head[at] ?? 0);
  if (given === undefined || Number.parseInt(given, 8) !== sum) return [];
  const first = latin1(head.subarray(0, 100)).split('\0', 1)[0] ?? '';
  if (/\.ovf$/i.test(first))
    return [{ what: 'an OVA file', instead: 'unpack it (tar -xf) and give the disk file that is in it' }];
  if (first === 'ova.xml')
    return [{ what: 'an export of XenServer (XVA)', instead: 'import it there, and export its disks as VHD' }];
  return [{ what: 'a tar archive', instead: 'unpack it (tar -xf) and give the disk file that is in it' }];
}

/** Texts that describe disks, or machines. No disk begins with text. */
function textOf(file: Disk, head: Uint8Array): Content[] {
  if (head.length === 0 || head.subarray(0, footerBytes).some((byte) => byte < 0x20 && ![0, 9, 10, 13].includes(byte)))
    return [];
  if (head[0] === 0) return [];
  const text =
    Buffer.from(readAt(file, 0, maxDescriptorBytes))
      .toString('utf8')
      .split('\0', 1)[0] ?? '';
  const described = sourceFormats.find((format) => format.describes?.(text) === true);
  if (described !== undefined) return [{ format: described, what: described.what }];
  const plain = text.replace(/^\uFEFF/, '').trimStart();
  if (/^<\?xml|^<(?:domain|Envelope|Parallels_disk_image)\b/.test(plain))
    return [{ what: 'an XML text', instead: 'give the disk file that it tells of' }];
  if (/^(?:\.encoding|config\.version|virtualHW\.version)\s*=/m.test(plain))
    return [{ what: 'a VMX text', instead: 'give the disk file that it tells of' }];
  return [];
}

function startsWith(bytes: Uint8Array, magic: string): boolean {
  return latin1(bytes.subarray(0, magic.length)) === magic;
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** As much of the range as lies in the file. */
function readAt(file: Disk, offset: number, lengthBytes: number): Uint8Array {
  const start = Math.max(0, offset);
  const bytes = new Uint8Array(Math.max(0, Math.min(lengthBytes, file.sizeBytes - start)));
  if (bytes.length > 0) file.read(bytes, start);
  return bytes;
}
