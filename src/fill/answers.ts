/**
 * Answers what is asked of the fills of a folder: in the process that serves a mount of it, or, where none has it mounted, in the one that asks.
 */
import path from 'node:path';
import { recordOf, removeLeftovers } from '../replacement/leftovers.ts';
import type { Fillable } from './fillable.ts';
import { defaultFillOptions, type Fills } from './fills.ts';
import type { FillStatus } from './fill-status.ts';
import type { FillOptions } from './job.ts';
import type { CopyAsk, FillAnswers } from './requests.ts';

/** The folder whose disks are filled. */
export interface FillableFolder {
  /** What it is called by now. */
  readonly path: string;
  /**
   * @param file path of a plugin file, from the folder
   * @throws UsageError unless it is one whose writes are kept; the system's error where it is gone
   */
  disk(file: string): Fillable;
}

/** Each of them throws UsageError where it cannot be done, and what else the fill throws. */
export function fillAnswers(fills: Fills, folder: FillableFolder): FillAnswers {
  const after = async (file: string, act: (disk: Fillable) => Promise<void>): Promise<FillStatus[]> => {
    const disk = folder.disk(file);
    await act(disk);
    return await fills.status(disk);
  };
  return {
    'fill.start': async (ask) => await after(ask.file, (disk) => fills.start(disk, copyOptions(fills, ask))),
    'fill.pause': async ({ file }) => await after(file, (disk) => fills.pause(disk)),
    'fill.resume': async (ask) => await after(ask.file, (disk) => fills.resume(disk, copyOptions(fills, ask))),
    'fill.cancel': async ({ file }) => await after(file, (disk) => fills.cancel(disk)),
    'fill.status': async ({ file }) => await fills.status(folder.disk(file)),
    'fill.verify': async ({ file }) => await fills.prove(folder.disk(file)),
    'fill.finalize': async ({ file, decrypts = false }) => {
      const place = path.join(folder.path, file);
      removeLeftovers(path.dirname(place));
      const record = recordOf(place);
      // An interrupted attempt came so far.
      if (record !== undefined) return { record, decrypted: [] };
      return await fills.finalize(folder.disk(file), decrypts);
    },
  };
}

/** A rate is of all fills of the folder, from now on. */
function copyOptions(fills: Fills, { isPolite, isVerified, bytesPerSecond }: CopyAsk): FillOptions {
  if (bytesPerSecond !== undefined) fills.setRate(bytesPerSecond);
  return {
    isPolite: isPolite ?? defaultFillOptions.isPolite,
    isVerified: isVerified ?? defaultFillOptions.isVerified,
  };
}
