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
import { targets } from '../guest/plan.ts';
import { bootableSchema, imagePointer, plainName, type ImagePointer } from './bootable-schema.ts';
import { geometrySchema, guid, size } from './geometry-schema.ts';

export const maxPluginFileBytes = 64 * KiB;
/** What a plugin file is called once its disk file has taken its place: it stands for no disk any more. */
export const recordSuffix = '.finalized';
/** The first key of every plugin file, but for white space; within its first bytes. */
const marker = '{"veneer":"pluginfile"';
/** As many bytes as are needed to see the marker. */
export const markerBytes = 64;
export const writeModes = ['intercept', 'discard', 'none'] as const;
/** What becomes of writes to a native file: kept beside the plugin file, thrown away at unmount, or refused. */
export type WriteMode = (typeof writeModes)[number];

export const replacementKinds = ['sealed', 'plain'] as const;
/** Of an encrypted image: whether what is written or copied out of it is sealed at rest with its key, or stands there for all to read. */
export type ReplacementKind = (typeof replacementKinds)[number];

const version = 1;

const fields = z.strictObject({
  veneer: z.literal('plugin file'),
  version: z.literal(version),
  about: z.string(),
  /** Names this native disk file: its own GUIDs come from it, and what is written to it is bound to it. */
  id: guid,
  image: imagePointer,
  /** What a guest sees. */
  disk: z.strictObject({
    content: z.enum(['disk', 'volume']),
    sizeBytes: size,
  }),
  /** What becomes of writes; `intercept` when absent. A mount may decide otherwise. */
  write: z.enum(writeModes).exactOptional(),
  /** Of an encrypted image: how replacement disk files and patch sets are kept. Of any other, plain. */
  replacement: z.enum(replacementKinds).exactOptional(),
  /** Of a disk that is made around volumes, of which `image` has the first. */
  bootable: bootableSchema.exactOptional(),
  /** What was made of the guest for other hardware, each in a file beside this one; of `target` is the one that is in force. */
  patchSets: z
    .array(
      z.strictObject({
        target: z.enum(targets),
        name: plainName,
        sizeBytes: size,
        sha256: z.string().regex(/^[0-9a-f]{64}$/, 'is not a SHA-256 in lower case'),
      }),
    )
    .max(targets.length)
    .exactOptional(),
  target: z.enum(targets).exactOptional(),
  native: geometrySchema,
});

const schema = fields
  .refine((plugin) => plugin.native.sizeBytes === plugin.disk.sizeBytes, {
    path: ['native', 'sizeBytes'],
    message: 'is not the size of the disk',
  })
  .refine((plugin) => plugin.bootable === undefined || plugin.bootable.sizeBytes === plugin.disk.sizeBytes, {
    path: ['bootable', 'sizeBytes'],
    message: 'is not the size of the disk',
  });

export type PluginFile = z.infer<typeof schema>;

/** Of a whole disk or a bare volume, one; of a disk that is made around volumes, one for each. */
export function imagesOf(plugin: PluginFile): readonly ImagePointer[] {
  return [plugin.image, ...(plugin.bootable?.furtherImages ?? [])];
}

const about =
  'This small file stands for a whole disk file. Mount its folder with "veneer mount FOLDER MOUNTPOINT": under the mount it reads as that disk.';

export function encodePluginFile(contents: Omit<PluginFile, 'veneer' | 'version' | 'about'>): Uint8Array {
  const text = `${JSON.stringify({ veneer: 'plugin file', version, about, ...contents }, null, 2)}\n`;
  const bytes = Buffer.from(text);
  if (bytes.length > maxPluginFileBytes) {
    throw new UsageError(
      `the plugin file would have ${bytes.length} bytes, more than ${maxPluginFileBytes}; use --layout fixed`,
    );
  }
  return bytes;
}

/** Whether a file whose first bytes these are claims to be a plugin file. */
export function isPluginFile(firstBytes: Uint8Array): boolean {
  return Buffer.from(firstBytes.subarray(0, markerBytes)).toString('latin1').replaceAll(/\s+/g, '').startsWith(marker);
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
  if (!isPluginFile(bytes)) throw new FormatError(name, 'marker', 0, 'is not a plugin file');
  let value: unknown;
  try {
    value = JSON.parse(nameOfBytes(bytes));
  } catch (error) {
    throw new FormatError(name, 'JSON', 0, 'cannot be parsed; make the plugin file again', { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new FormatError(name, fieldOf(issue), 0, `${issue?.message ?? 'is wrong'}; make the plugin file again`);
}

function fieldOf(issue: z.core.$ZodIssue | undefined): string {
  const unknown = issue?.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [];
  const field = [...(issue?.path ?? []), ...unknown].join('.');
  return field === '' ? 'contents' : field;
}
