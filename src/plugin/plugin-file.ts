/**
 * The plugin file: a small JSON text that stands for a native disk file and points to an image. It holds all that answers `stat`, `open`
 * and reads of the native file's own metadata, so that these never open an image.
 *
 * A file is a plugin file by its content, never by its name: it starts with the marker below.
 */
import * as fs from '../base/fs.ts';
import { z } from 'zod';
import { FormatError, UsageError } from '../base/errors.ts';
import { nameOfBytes } from '../base/names.ts';
import { openRegular } from '../base/regular-file.ts';
import { KiB } from '../base/units.ts';
import { namedGuid, nilGuid, type Guid } from '../bytes/guid.ts';
import { targets } from '../guest/plan.ts';
import { geometrySchema } from '../native/formats.ts';
import { guid, size } from '../native/schema.ts';
import { imagePointer, sha256, sourceAddress, type ImagePointer, type SourceAddress } from '../source/address.ts';
import { ownContent } from '../source/own-content.ts';
import { bootableSchema, plainName } from './bootable-schema.ts';

export const maxPluginFileBytes = 64 * KiB;
/** What a plugin file is called once its disk file has taken its place: it stands for no disk any more. */
export const recordSuffix = '.finalized';
export const writeModes = ['intercept', 'discard', 'none'] as const;
/** What becomes of writes to a native file: kept beside the plugin file, thrown away at unmount, or refused. */
export type WriteMode = (typeof writeModes)[number];

export const replacementKinds = ['sealed', 'plain'] as const;
/** Of an encrypted image: whether what is written or copied out of it is sealed at rest with its key, or stands there for all to read. */
export type ReplacementKind = (typeof replacementKinds)[number];

/** What both versions say alike. */
const common = {
  about: z.string(),
  /** Names this native disk file: its own GUIDs come from it, and what is written to it is bound to it. */
  id: guid,
  /** What a guest sees. */
  disk: z.strictObject({
    content: z.enum(['disk', 'volume']),
    sizeBytes: size,
  }),
  /** What becomes of writes; `intercept` when absent. A mount may decide otherwise. */
  write: z.enum(writeModes).exactOptional(),
  /** Of an encrypted image: how replacement disk files and patch sets are kept. Of any other, plain. */
  replacement: z.enum(replacementKinds).exactOptional(),
  /** Of a disk that is made around volumes, of which the source has the first. */
  bootable: bootableSchema.exactOptional(),
  /** What was made of the guest for other hardware, each in a file beside this one; of `target` is the one that is in force. */
  patchSets: z
    .array(z.strictObject({ target: z.enum(targets), name: plainName, sizeBytes: size, sha256 }))
    .max(targets.length)
    .exactOptional(),
  target: z.enum(targets).exactOptional(),
  native: geometrySchema,
};

const anySource = z.strictObject({ ...common, source: sourceAddress });
const imageOnly = z
  .strictObject({ ...common, image: imagePointer })
  .transform(({ image, ...rest }): PluginFile => ({ ...rest, source: { kind: 'chain', ...image } }));

/** What a plugin file says, whatever version it is written in. */
export type PluginFile = z.infer<typeof anySource>;

/** By version: 1 knows images alone, 2 any source. */
const schemas = new Map<unknown, z.ZodType<PluginFile>>([
  [1, imageOnly],
  [2, anySource],
]);

const marked = { veneer: z.literal('plugin file'), about: common.about, id: common.id };
/** The fields as they stand in a file. */
export const writtenSchema = z.discriminatedUnion('version', [
  z.strictObject({ version: z.literal(1), ...marked, image: imagePointer, ...common }),
  z.strictObject({ version: z.literal(2), ...marked, source: sourceAddress, ...common }),
]);
type WrittenForm = z.input<typeof writtenSchema>;

/** The same before it is written. */
export type PluginContents = Omit<PluginFile, 'about'> & { readonly about?: string };

/** Of a whole disk or a bare volume, one; of a disk that is made around volumes, one for each. */
export function sourcesOf({ source, bootable }: PluginFile): readonly SourceAddress[] {
  const further = (bootable?.furtherImages ?? []).map((image) => ({ kind: 'chain', ...image }) as const);
  return [source, ...further];
}

/** Those of its sources that are images. */
export function imagesOf(plugin: PluginFile): readonly ImagePointer[] {
  return sourcesOf(plugin).filter((source) => source.kind === 'chain');
}

/** Where a source lies, and a name for its bytes: an image's own, or one of a disk file's state. */
export interface SourcePointer {
  readonly kind: SourceAddress['kind'];
  /** As the plugin file has it. */
  readonly path: string;
  readonly id: Guid;
}

export function pointersOf(plugin: PluginFile): readonly SourcePointer[] {
  return sourcesOf(plugin).map((source) => {
    const id = source.kind === 'chain' ? source.imageId : namedGuid(nilGuid, `disk file ${source.stateSha256}`);
    return { kind: source.kind, path: source.path, id };
  });
}

/** Names for the bytes of its sources, which a patch set is bound to. */
export function sourceIdsOf(plugin: PluginFile): readonly Guid[] {
  return pointersOf(plugin).map(({ id }) => id);
}

const aboutText =
  'This small file stands for a whole disk file. Mount its folder with "veneer mount FOLDER MOUNTPOINT": under the mount it reads as that disk.';

/** The fields as they stand in the file: of version 1 where that can say it, so that older builds read it. */
export function writtenForm({ id, source, about = aboutText, ...rest }: PluginContents): WrittenForm {
  if (source.kind !== 'chain') return { veneer: 'plugin file', version: 2, about, id, source, ...rest };
  const { path, imageId, chainId, createdAt } = source;
  const image = { path, imageId, chainId, createdAt };
  return { veneer: 'plugin file', version: 1, about, id, image, ...rest };
}

/** @throws UsageError when it would be too large */
export function encodePluginFile(contents: PluginContents): Uint8Array {
  const bytes = Buffer.from(`${JSON.stringify(writtenForm(contents), null, 2)}\n`);
  if (bytes.length > maxPluginFileBytes) {
    throw new UsageError(
      `the plugin file would have ${bytes.length} bytes, more than ${maxPluginFileBytes}; use --layout fixed`,
    );
  }
  return bytes;
}

/** Reads a file that should be a plugin file; one that is too large for it is not read. A link is followed. @throws FormatError, ForbiddenError */
export function readPluginFile(file: string): PluginFile {
  const fd = openPluginFile(file);
  try {
    return readOpenPluginFile(fd, file);
  } finally {
    fs.closeSync(fd);
  }
}

/** For who reads it, and holds on to it. @throws ForbiddenError when it is no regular file; the system's error */
export function openPluginFile(file: string): number {
  return openRegular(fs.realpathSync(file), fs.constants.O_RDONLY, file);
}

/** @param name for errors. @throws FormatError */
export function readOpenPluginFile(fd: number, name: string): PluginFile {
  const bytes = new Uint8Array(maxPluginFileBytes + 1);
  let length = 0;
  for (let count = -1; count !== 0; length += count)
    count = fs.readSync(fd, bytes, length, bytes.length - length, length);
  return parsePluginFile(bytes.subarray(0, length), name);
}

/**
 * @param name for errors
 * @throws FormatError naming the first field that is wrong
 */
export function parsePluginFile(bytes: Uint8Array, name: string): PluginFile {
  if (bytes.length > maxPluginFileBytes) {
    throw new FormatError(name, 'size', 0, `it has more bytes than a plugin file may have (${maxPluginFileBytes})`);
  }
  if (ownContent(bytes) !== 'plugin file') throw new FormatError(name, 'marker', 0, 'is not a plugin file');
  let value: unknown;
  try {
    value = JSON.parse(nameOfBytes(bytes));
  } catch (error) {
    throw new FormatError(name, 'JSON', 0, 'cannot be parsed; make the plugin file again', { cause: error });
  }
  const refuse = (field: string, why: string): FormatError =>
    new FormatError(name, field, 0, `${why}; make the plugin file again`);
  // The marker is the beginning of an object.
  const { veneer, version, ...fields } = value as Record<string, unknown>;
  if (veneer !== 'plugin file') throw refuse('veneer', 'is not "plugin file"');
  const schema = schemas.get(version);
  if (schema === undefined) throw refuse('version', `${JSON.stringify(version)} is not one that this Veneer reads`);
  const parsed = schema.safeParse(fields);
  if (!parsed.success) throw refuse(fieldOf(parsed.error.issues[0]), parsed.error.issues[0]?.message ?? 'is wrong');
  const wrong = contradictionIn(parsed.data);
  if (wrong !== undefined) throw refuse(wrong.field, wrong.why);
  return parsed.data;
}

/** Fields of which each may be right, and which do not go together. */
function contradictionIn({ native, disk, bootable, source, replacement }: PluginFile): Contradiction | undefined {
  if (native.sizeBytes !== disk.sizeBytes) return { field: 'native.sizeBytes', why: 'is not the size of the disk' };
  if (bootable !== undefined && bootable.sizeBytes !== disk.sizeBytes)
    return { field: 'bootable.sizeBytes', why: 'is not the size of the disk' };
  if (source.kind === 'chain') return undefined;
  if (bootable !== undefined) return { field: 'bootable', why: 'is for images of volumes only' };
  if (replacement === 'sealed') return { field: 'replacement', why: 'is sealed, and no image gives a key for that' };
  return undefined;
}

interface Contradiction {
  readonly field: string;
  readonly why: string;
}

function fieldOf(issue: z.core.$ZodIssue | undefined): string {
  const unknown = issue?.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [];
  const field = [...(issue?.path ?? []), ...unknown].join('.');
  return field === '' ? 'contents' : field;
}
