/**
 * A patch set: what reconfiguring a guest changes on its disk, as a file that can be thrown away. The image is not touched by it.
 *
 *   0      header   128 bytes: magic, version, lengths, SHA-256 of all that follows, CRC-32C of the header
 *   128    manifest, JSON: target, the images that it is for, what is done and why, where each patch lies
 *   then   payload: of each patch the bytes before and the bytes after; then the additional initramfs
 *
 * Bound to the image by its id and size, and to the bytes that it replaces: on any other disk it is refused. Who reads a disk with it holds
 * no more of it than where each patch lies: the payload is read when it is needed.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { FormatError, IntegrityError, UnsupportedError } from '../base/errors.ts';
import { toOffset } from '../base/ranges.ts';
import { MiB } from '../base/units.ts';
import { checkCrc32c, sealCrc32c } from '../bytes/checksum.ts';
import { ascii, bytes, layout, reserved, u16le, u32le, u64le } from '../bytes/layout.ts';
import type { Disk } from '../disk/disk.ts';
import { patchedDisk, type StoredPatch } from '../disk/patched.ts';
import { sliceDisk } from '../disk/slice.ts';
import { checkPlaces, maxPatchedBytes, maxPatches, type Patch, type PatchPlace } from '../filesystem/edit/patch.ts';
import { targets } from './plan.ts';

const headerBytes = 128;
/** In front of every patch set, plain or sealed. */
export const patchSetMagic = 'VENEERPS';
const version = 1;
const maxManifestBytes = 8 * MiB;
const maxInitramfsBytes = 32 * MiB;
const hashedBytes = MiB;
export const maxPatchSetBytes = headerBytes + maxManifestBytes + 2 * maxPatchedBytes + maxInitramfsBytes;

const header = layout('patch set header', headerBytes, {
  magic: ascii(0, patchSetMagic),
  version: u16le(8),
  reserved1: reserved(10, 2),
  manifestBytes: u32le(12),
  payloadBytes: u64le(16),
  sha256: bytes(24, 32), //   of manifest and payload
  reserved2: reserved(56, 68),
  crc32c: u32le(124),
});

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const text = z.string().max(65_536);
const manifestSchema = z.strictObject({
  target: z.enum(targets),
  /** The volumes behind the disk, in order; of a whole disk, the one image. */
  images: z
    .array(z.strictObject({ imageId: z.string(), sizeBytes: count }))
    .min(1)
    .max(16),
  guest: z.record(z.string(), z.unknown()),
  changes: z.array(z.strictObject({ what: text, where: text, old: text, new: text, why: text })).max(100_000),
  warnings: z.array(text).max(10_000),
  /** In the order of the payload. */
  patches: z
    .array(z.strictObject({ image: z.number().int().min(0).max(15), offsetBytes: count, lengthBytes: count }))
    .max(maxPatches),
  /** Of the boot loader around a volume. */
  bootConfig: z.string().max(65_536).exactOptional(),
  initramfsBytes: count,
});
type Manifest = z.infer<typeof manifestSchema>;

export interface PatchSet extends Omit<Manifest, 'patches' | 'initramfsBytes'> {
  /** By image. */
  readonly patches: readonly (Patch & { readonly image: number })[];
  readonly initramfs?: Uint8Array;
}

/** A patch set as it lies in its file. */
export interface StoredPatchSet extends Omit<Manifest, 'patches' | 'initramfsBytes'> {
  readonly patches: readonly FilePatch[];
  readonly initramfs?: Disk;
  /** What is read of it from now on comes from here. Its owner closes it. */
  readonly file: Disk;
}

/** One patch: the bytes before and the bytes after lie behind each other in the file. */
class FilePatch implements PatchPlace, StoredPatch {
  readonly image: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly #file: Disk;
  readonly #at: number;

  constructor(file: Disk, at: number, place: Manifest['patches'][number]) {
    this.image = place.image;
    this.offset = place.offsetBytes;
    this.lengthBytes = place.lengthBytes;
    this.#file = file;
    this.#at = at;
  }

  get offsetBytes(): number {
    return this.offset;
  }

  readBefore(target: Uint8Array, from: number): void {
    this.#file.read(target, this.#at + from);
  }

  read(target: Uint8Array, from: number): void {
    this.#file.read(target, this.#at + this.lengthBytes + from);
  }
}

export function encodePatchSet(set: PatchSet): Uint8Array {
  const { patches, initramfs, ...rest } = set;
  const manifest: Manifest = {
    ...rest,
    patches: patches.map(({ image, offsetBytes, after }) => ({ image, offsetBytes, lengthBytes: after.length })),
    initramfsBytes: initramfs?.length ?? 0,
  };
  const manifestJson = Buffer.from(JSON.stringify(manifest));
  if (manifestJson.length > maxManifestBytes || (initramfs?.length ?? 0) > maxInitramfsBytes)
    throw new UnsupportedError('the plan is too long for a patch set');
  const payload = patches.flatMap(({ before, after }) => [before, after]);
  const body = Buffer.concat([manifestJson, ...payload, ...(initramfs === undefined ? [] : [initramfs])]);
  const front = header.encode({
    version,
    manifestBytes: manifestJson.length,
    payloadBytes: BigInt(body.length - manifestJson.length),
    sha256: sha256(body),
    crc32c: 0,
  });
  return Buffer.concat([sealCrc32c(front, header.offsetOf('crc32c')), body]);
}

/**
 * @param file stays the caller's to close, also when this throws
 * @param name for errors
 * @throws FormatError, IntegrityError, UnsupportedError
 */
export function parsePatchSet(file: Disk, name: string): StoredPatchSet {
  const wrong = (field: string, detail: string): FormatError =>
    new FormatError(name, field, 0, `${detail}; reconfigure again`);
  const { manifestBytes, hash } = parseHeader(file, name, wrong);
  const manifestJson = new Uint8Array(manifestBytes);
  file.read(manifestJson, headerBytes);
  const actual = hashOf(file, headerBytes);
  if (!actual.equals(hash)) throw new IntegrityError(name, Buffer.from(hash).toString('hex'), actual.toString('hex'));
  const { patches: places, initramfsBytes, ...rest } = parseManifest(manifestJson, wrong);
  let at = headerBytes + manifestBytes;
  const take = (length: number): number => {
    if (at + length > file.sizeBytes) throw wrong('payload', 'is shorter than the manifest says');
    at += length;
    return at - length;
  };
  const patches = places.map((place) => new FilePatch(file, take(2 * place.lengthBytes), place));
  const initramfs = initramfsBytes === 0 ? undefined : sliceDisk(file, take(initramfsBytes), initramfsBytes);
  if (at !== file.sizeBytes) throw wrong('payload', 'is longer than the manifest says');
  return { ...rest, patches, file, ...(initramfs === undefined ? {} : { initramfs }) };
}

function parseHeader(
  file: Disk,
  name: string,
  wrong: (field: string, detail: string) => FormatError,
): { manifestBytes: number; hash: Uint8Array } {
  if (file.sizeBytes < headerBytes) throw wrong('length', 'is shorter than its header');
  const front = new Uint8Array(headerBytes);
  file.read(front, 0);
  if (Buffer.from(front.subarray(0, 8)).toString('latin1') !== patchSetMagic)
    throw wrong('magic', 'is not a patch set');
  checkCrc32c(front, header.offsetOf('crc32c'), `${name}: header`);
  const found = header.parse(front);
  if (found.version !== version)
    throw new UnsupportedError(
      `${name}: is a patch set of version ${found.version}, of which this Veneer knows ${version}`,
    );
  const payloadBytes = toOffset(found.payloadBytes, maxPatchSetBytes, {
    structure: name,
    field: 'payload',
    offset: 16,
  });
  if (found.manifestBytes > maxManifestBytes || headerBytes + found.manifestBytes + payloadBytes !== file.sizeBytes)
    throw wrong('length', 'is not what its header says');
  return { manifestBytes: found.manifestBytes, hash: found.sha256 };
}

/** SHA-256 of a file from a place to its end, a piece at a time. */
function hashOf(file: Disk, start: number): Buffer {
  const hash = createHash('sha256');
  const piece = new Uint8Array(hashedBytes);
  for (let at = start; at < file.sizeBytes; at += piece.length) {
    const bytes = piece.subarray(0, Math.min(piece.length, file.sizeBytes - at));
    file.read(bytes, at);
    hash.update(bytes);
  }
  return hash.digest();
}

function parseManifest(bytes: Uint8Array, wrong: (field: string, detail: string) => FormatError): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    throw wrong('manifest', 'cannot be parsed');
  }
  const parsed = manifestSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw wrong('manifest', parsed.error.issues[0]?.message ?? 'is wrong');
}

/**
 * The volumes with the patches over them, each held against what it replaces. Owns what is below.
 * @param imageIds of the disks, in order
 * @throws IntegrityError, FormatError where the set is for other disks
 */
export function applyPatchSet(
  set: StoredPatchSet,
  disks: readonly Disk[],
  imageIds: readonly string[],
  name: string,
): Disk[] {
  const isFor =
    set.images.length === disks.length &&
    set.images.every(
      ({ imageId, sizeBytes }, index) => imageId === imageIds[index] && sizeBytes === disks[index]?.sizeBytes,
    );
  if (!isFor) throw new FormatError(name, 'images', 0, 'is for another image; reconfigure again');
  if (set.patches.some(({ image }) => image >= disks.length))
    throw new FormatError(name, 'patch', 0, 'names an image that there is not');
  return disks.map((disk, index) => {
    const patches = checkPlaces(
      set.patches.filter(({ image }) => image === index),
      disk,
    );
    return patches.length === 0 ? disk : patchedDisk(disk, patches);
  });
}

function sha256(contents: Uint8Array): Buffer {
  return createHash('sha256').update(contents).digest();
}
