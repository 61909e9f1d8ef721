/** Writes a chain's disk out as a real native disk file: what a plugin file would read as, to keep. */
import path from 'node:path';
import { closing } from '../base/ownership.ts';
import { randomGuid } from '../bytes/guid.ts';
import { openChainDisk } from '../backup/read/chain.ts';
import { assertMayExtract, type Extracted, type ExtractOptions } from '../backup/read/extract.ts';
import { writeDiskOut } from '../disk/write-out.ts';
import type { PlanOptions } from '../native/format.ts';
import { synthesizeFiles, type FormatName } from '../native/formats.ts';
import { segmentDisk } from '../native/segment-map.ts';
import { planForDisk } from './create.ts';

/**
 * Extracts the disk as of `imagePath` as a native disk file at `outPath` (a flat VMDK: its extent beside it). The file that was asked for
 * appears last.
 * @throws UsageError when a file exists already, or is a device; whatever reading or writing throws
 */
export function extractNative(
  imagePath: string,
  outPath: string,
  format: FormatName,
  options: ExtractOptions & PlanOptions = {},
): Extracted {
  using disk = closing(openChainDisk(imagePath, undefined, undefined, options.keys));
  disk.value.requireKey();
  const geometry = planForDisk(disk.value, format, randomGuid(), options);
  const files = synthesizeFiles(geometry, path.basename(outPath)).map(({ name, map }) => ({
    path: path.join(path.dirname(outPath), name),
    map,
  }));
  for (const file of files) assertMayExtract(disk.value, file.path, options);
  const totalBytes = files.reduce((sum, file) => sum + file.map.sizeBytes, 0);
  let finishedBytes = 0;
  let writtenBytes = 0;
  for (const file of files.reverse()) {
    const before = finishedBytes;
    const contents = segmentDisk(file.map, disk.value);
    writtenBytes += writeDiskOut(contents, file.path, (bytes) => options.onProgress?.(before + bytes, totalBytes));
    finishedBytes += file.map.sizeBytes;
  }
  return { sizeBytes: disk.value.sizeBytes, writtenBytes };
}
