/** Files added to a volume as a plan would, and every judge's look at them. */
import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import { openFileDisk } from '../../../src/disk/file.ts';
import { checkPatches } from '../../../src/filesystem/edit/patch.ts';
import type { AddedFiles, NewFile } from '../../../src/filesystem/ntfs/add-files.ts';
import { FilesByPath } from '../../../src/filesystem/by-path.ts';
import { NtfsVolume } from '../../../src/filesystem/ntfs/volume.ts';
import { missingProgram } from '../../native/judges.ts';
import { applyTo } from '../trees.ts';
import { isRecordTaken, judgedFile, judgeVolume, readTree, sleuthFile, sleuthPrograms } from './judges.ts';
import { catFile } from './made-volume.ts';

export const drivers = '/Windows/System32/drivers';
const modified = new Date('2024-05-06T07:08:09.123Z');

export function newFile(path: string, contents: Uint8Array): NewFile {
  return { path, contents, modified, source: 'a test', why: 'it is tested' };
}

export function withVolume<T>(image: string, use: (volume: FilesByPath, ntfs: NtfsVolume) => T): T {
  const disk = openFileDisk(image);
  try {
    const ntfs = new NtfsVolume(disk);
    return use(new FilesByPath(ntfs), ntfs);
  } finally {
    disk.close();
  }
}

/** Adds the files as a plan would, to the image itself. */
export function addTo(image: string, files: readonly NewFile[]): AddedFiles {
  const disk = openFileDisk(image);
  let added: AddedFiles;
  try {
    added = new NtfsVolume(disk).addFiles(files);
    checkPatches(added.patches, disk);
  } finally {
    disk.close();
  }
  applyTo(image, added.patches);
  return added;
}

export function sha256(contents: Uint8Array): string {
  return createHash('sha256').update(contents).digest('hex');
}

/**
 * All files are what they were, these ones are new, and every judge agrees. ntfs-3g finds each of them by its name, down its folder's tree:
 * that is the judge of the order.
 */
export function judgeAdded(image: string, before: ReadonlyMap<string, string>, files: readonly NewFile[]): void {
  judgeVolume(image);
  const expected = new Map(before);
  for (const { path: name, contents } of files) expected.set(name, sha256(contents));
  expect([...readTree(image)].sort()).toEqual([...expected].sort());
  for (const { path: name, contents } of files) {
    expect(catFile(image, name).equals(contents)).toBe(true);
    const { record, clusters, text } = judgedFile(image, name);
    expect(isRecordTaken(image, record)).toBe(true);
    expect(text).toMatch(/Number of Hard Links:\s+1 /);
    expect(withVolume(image, (volume) => volume.stat(name))).toMatchObject({
      type: 'file',
      sizeBytes: contents.length,
    });
    if (missingProgram(sleuthPrograms) !== undefined) continue;
    const { contents: found, text: described } = sleuthFile(image, record);
    expect(found.equals(contents)).toBe(true);
    expect(described).toMatch(/^Allocated File$/m);
    expect(described).toMatch(/2024-05-06 07:08:09/);
    const named = /Type: \$DATA \(128-\d+\).*Non-Resident[^\n]*\n([\d \n]*)/.exec(described)?.[1] ?? '';
    expect(
      named
        .split(/\s+/)
        .filter((part) => part !== '')
        .map(Number),
    ).toEqual(clusters);
  }
}
