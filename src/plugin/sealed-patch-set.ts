/**
 * A patch set as it is kept for an encrypted image whose plugin file says `sealed`: whole, as one unit, so that nothing of it can be read,
 * changed, cut off or exchanged without the chain's key.
 *
 *   0      header   128 bytes: what it is for, readable by all; CRC-32C
 *   128    nonce 12 | tag 16 | AES-256-GCM ciphertext of the patch set as guest/patch-set.ts draws it
 *
 * The key is derived for this target, plugin file and these images: of any other it does not open. The header is its additional data, with
 * the CRC as zero.
 */
import { FormatError, UnsupportedError, VeneerError } from '../base/errors.ts';
import { ascii, guid, layout, reserved, text, u16le, u32le, u64le } from '../bytes/layout.ts';
import { checkCrc32c, sealCrc32c } from '../bytes/checksum.ts';
import { guidToBytes, nilGuid, type Guid } from '../bytes/guid.ts';
import { nonceBytes } from '../backup/crypto/aes-gcm.ts';
import { sealOverheadBytes, type ChainKey, type Sealer } from '../backup/crypto/seal.ts';
import { checkRange, type Disk } from '../disk/disk.ts';
import {
  encodePatchSet,
  maxPatchSetBytes,
  parsePatchSet,
  patchSetMagic,
  type PatchSet,
  type StoredPatchSet,
} from '../guest/patch-set.ts';
import type { Target } from '../guest/plan.ts';

const headerBytes = 128;
/** What a part of a sealed unit is decrypted in. */
const cipherBlockBytes = 16;
/** Of the versions of patch sets, the one that is sealed. */
const version = 2;
export const maxSealedPatchSetBytes = headerBytes + sealOverheadBytes + maxPatchSetBytes;

const header = layout('sealed patch set header', headerBytes, {
  magic: ascii(0, patchSetMagic),
  version: u16le(8),
  reserved1: reserved(10, 6),
  sealedBytes: u64le(16), // all behind the header
  pluginId: guid(24),
  imageId: guid(40), //      of the first image
  chainId: guid(56), //      whose key opens it
  target: text(72, 24, 'utf8'),
  reserved2: reserved(96, 28),
  crc32c: u32le(124),
});

/** Which patch set it is. */
export interface PatchSetPlace {
  readonly target: Target;
  readonly pluginId: Guid;
  readonly imageIds: readonly Guid[];
}

/** Whether a file claims to be a sealed patch set. */
export function isSealedPatchSet(file: Disk): boolean {
  const front = Buffer.alloc(Math.min(10, file.sizeBytes));
  file.read(front, 0);
  return front.length === 10 && front.toString('latin1', 0, 8) === patchSetMagic && front.readUInt16LE(8) === version;
}

export function sealPatchSet(set: PatchSet, place: PatchSetPlace, key: ChainKey): Uint8Array {
  const plain = encodePatchSet(set);
  const sealedBytes = plain.length + sealOverheadBytes;
  const front = header.encode({
    version,
    sealedBytes: BigInt(sealedBytes),
    pluginId: place.pluginId,
    imageId: place.imageIds[0] ?? nilGuid,
    chainId: key.chainId,
    target: place.target,
    crc32c: 0,
  });
  const file = new Uint8Array(headerBytes + sealedBytes);
  sealerOf(place, key).seal(plain, front, file.subarray(headerBytes));
  file.set(sealCrc32c(front, header.offsetOf('crc32c')));
  return file;
}

/**
 * @param file stays the caller's to close; it must not change any more, as one that is verified (disk/verified.ts) or in memory
 * @param name for errors
 * @throws FormatError, UnsupportedError when it is none, or another; VeneerError (INTEGRITY) when anything of it was changed
 */
export function openPatchSet(file: Disk, place: PatchSetPlace, key: ChainKey, name: string): StoredPatchSet {
  const sealed = new Uint8Array(Math.max(0, file.sizeBytes - headerBytes));
  if (sealed.length < sealOverheadBytes)
    throw new FormatError(name, 'length', 0, 'is shorter than a sealed patch set; reconfigure again');
  const front = new Uint8Array(headerBytes);
  file.read(front, 0);
  checkCrc32c(front, header.offsetOf('crc32c'), `${name}: header`);
  const found = header.parse(front);
  if (found.version !== version) throw new UnsupportedError(`${name}: is no sealed patch set of version ${version}`);
  if (found.sealedBytes !== BigInt(sealed.length))
    throw new FormatError(name, 'length', 16, 'is not what its header says; reconfigure again');
  const isFor =
    found.pluginId === place.pluginId && found.imageId === place.imageIds[0] && found.target === place.target;
  if (!isFor)
    throw new FormatError(name, 'identity', 24, 'is of another plugin file, image or target; reconfigure again');
  front.fill(0, header.offsetOf('crc32c'));
  file.read(sealed, headerBytes);
  const sealer = sealerOf(place, key);
  const plain = sealed.subarray(sealOverheadBytes);
  if (!sealer.openInto(sealed, plain, front, plain))
    throw new VeneerError(
      'INTEGRITY',
      `${name}: was changed since it was sealed, or sealed with another key than its image's; reconfigure again`,
    );
  // From now on it is decrypted as it is read, and not kept: the file is the one whose seal was just checked.
  return parsePatchSet(openedDisk(file, sealer, sealed.slice(0, nonceBytes)), name);
}

/** The plain bytes of a sealed patch set, decrypted when they are read. */
function openedDisk(file: Disk, sealer: Sealer, nonce: Uint8Array): Disk {
  const start = headerBytes + sealOverheadBytes;
  const disk: Disk = {
    sizeBytes: file.sizeBytes - start,
    read(target, offset) {
      checkRange(disk, offset, target.length);
      const skipped = offset % cipherBlockBytes;
      const part = new Uint8Array(skipped + target.length);
      file.read(part, start + offset - skipped);
      sealer.openPart(nonce, offset - skipped, part, part);
      target.set(part.subarray(skipped));
    },
    extents: (offset, length) => file.extents(start + offset, length),
    close: () => file.close(),
  };
  return disk;
}

function sealerOf({ target, pluginId, imageIds }: PatchSetPlace, key: ChainKey): Sealer {
  const context = [Buffer.from(`${target}\0`), ...[pluginId, ...imageIds].map((id) => guidToBytes(id))];
  return key.sealer('veneer patch set', Buffer.concat(context));
}
