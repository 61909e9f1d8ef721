/**
 * Which mounts there are: one small record for each, with the process that serves it, in a folder of the user's own. Records of processes
 * that are gone are cleared away when they are met.
 */
import { createHash } from 'node:crypto';
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { z } from 'zod';
import { fileModes } from '../base/file-modes.ts';
import { homeFolder, runtimeFolder } from '../base/given-names.ts';
import { bytesOfName } from '../base/names.ts';
import { openOwnFile, ownFolder } from '../base/own-files.ts';

const { O_WRONLY, O_TRUNC } = fs.constants;

export const mountRecordSchema = z.object({
  pid: z.number().int().positive(),
  folder: z.string(),
  mountpoint: z.string(),
  transport: z.string(),
  startedAt: z.string(),
  /** Where its plugin files may point, beside its folder; absent from mounts of earlier versions. */
  allowPaths: z.array(z.string()).exactOptional(),
});

export type MountRecord = z.infer<typeof mountRecordSchema>;

/** Files of one mount: its record, the socket it is controlled by, and its log. */
export interface MountFiles {
  readonly record: string;
  readonly socket: string;
  readonly log: string;
}

export function mountFiles(mountpoint: string): MountFiles {
  const name = createHash('sha256').update(bytesOfName(mountpoint)).digest('hex').slice(0, 16);
  const base = path.join(stateFolder(), name);
  return { record: `${base}.json`, socket: `${base}.sock`, log: `${base}.log` };
}

export function writeRecord(record: MountRecord): void {
  const fd = openOwnFile(mountFiles(record.mountpoint).record, O_WRONLY | O_TRUNC, fileModes.record);
  try {
    fs.writeFileSync(fd, `${JSON.stringify(record)}\n`);
  } finally {
    fs.closeSync(fd);
  }
}

export function removeRecord(mountpoint: string): void {
  const { record, socket } = mountFiles(mountpoint);
  fs.rmSync(record, { force: true });
  fs.rmSync(socket, { force: true });
}

/** The record of the mount at this absolute path, if a process serves it. */
export function findRecord(mountpoint: string): MountRecord | undefined {
  return readRecord(mountFiles(mountpoint).record);
}

/** All mounts that a living process of this user serves. */
export function listRecords(): MountRecord[] {
  const records = fs
    .readdirSync(stateFolder())
    .filter((name) => name.endsWith('.json'))
    .map((name) => readRecord(path.join(stateFolder(), name)));
  return records.filter((record) => record !== undefined);
}

/** A process that has ended counts as gone though its parent has not asked for its status yet: in a container nobody may ever. */
export function isAlive(pid: number): boolean {
  let stat: string;
  try {
    stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return false;
  }
  // "pid (name) state …", where the name may hold anything.
  return !['Z', 'X'].includes(stat.charAt(stat.lastIndexOf(')') + 2));
}

/** Whether a process is about to end, or has ended: it has no memory any more, and so no arguments; its files may still be open. */
export function isEnding(pid: number): boolean {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`).length === 0;
  } catch {
    return true;
  }
}

function readRecord(file: string): MountRecord | undefined {
  let text: string;
  try {
    text = fs.readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { data } = mountRecordSchema.safeParse(value);
  if (data !== undefined && isAlive(data.pid)) return data;
  if (data !== undefined) removeRecord(data.mountpoint);
  return undefined;
}

/** Where this user's mounts keep what they tell of themselves. */
export function stateFolder(): string {
  const isRoot = process.getuid?.() === 0;
  const base = isRoot ? '/run' : (runtimeFolder() ?? path.join(homeFolder(), '.cache'));
  const folder = path.join(base, 'veneer');
  ownFolder(folder);
  return folder;
}
