/**
 * Requests about fills: answered by the process that serves the mount, or, for a folder that is not mounted, by the one that asks.
 */
import path from 'node:path';
import { BlockCache } from '../backup/block-cache.ts';
import { defaultIndexBytes } from '../backup/index-cache.ts';
import type { ThreadKeys } from '../backup/key-ring.ts';
import { unlockFolder } from '../backup/unlock-folder.ts';
import { GateMemory } from '../base/source-gate.ts';
import { MiB } from '../base/units.ts';
import { randomGuid } from '../bytes/guid.ts';
import { recordOf, removeLeftovers } from '../replacement/leftovers.ts';
import { SharedRate } from '../fill/pace.ts';
import type { FillRequest } from '../mounts/control.ts';
import { FillThreads, maxFillThreads } from '../fill/threads.ts';
import { defaultFillJobs, FillTurns } from '../fill/turns.ts';
import { Fills, type Finalized } from '../fill/fills.ts';
import type { Log } from '../base/log.ts';
import { OpenReplacements } from '../replacement/replacements.ts';
import { takeFolder } from '../mounts/served-folder.ts';
import { defaultSourceTimeoutMs, SourceWatch } from '../base/source-watch.ts';
import { Statistics } from '../fill/statistics.ts';
import { Filter } from './filter.ts';

/** What is asked of a fill, by whoever speaks with the mount. @throws UsageError, and what else the fill throws */
export async function answerFill(fills: Fills, filter: Filter, request: FillRequest): Promise<unknown> {
  if (request.action === 'finalize') {
    const file = path.join(filter.root.path, request.file);
    removeLeftovers(path.dirname(file));
    const record = recordOf(file);
    // An interrupted attempt came so far.
    if (record !== undefined) return { record, decrypted: [] } satisfies Finalized;
  }
  const disk = filter.disk(request.file);
  const { isPolite = true, isVerified = true } = request;
  if (request.bytesPerSecond !== undefined) fills.setRate(request.bytesPerSecond);
  switch (request.action) {
    case 'start':
      await fills.start(disk, { isPolite, isVerified });
      break;
    case 'pause':
      await fills.pause(disk);
      break;
    case 'resume':
      await fills.resume(disk, { isPolite, isVerified });
      break;
    case 'cancel':
      await fills.cancel(disk);
      break;
    case 'verify':
      return await fills.prove(disk);
    case 'finalize':
      return await fills.finalize(disk, request.decrypts === true);
    case 'status':
  }
  return await fills.status(disk);
}

/** Of each thread that copies, and of this one, which reads metadata alone. */
const cacheBytes = 16 * MiB;

/** The fills of a folder that is not mounted. */
export interface UnmountedFills {
  answer(request: FillRequest): Promise<unknown>;
  look(): void;
  /** What was under way goes on at the next mount, or the next start. */
  close(): Promise<void>;
}

/**
 * A plugin file whose folder no process has mounted.
 * @throws UsageError when a mount serves the folder that is not this user's to speak with
 * @param log where failures are told that do not end a request
 */
export async function openUnmounted(pluginPath: string, asked: ThreadKeys, log: Log): Promise<UnmountedFills> {
  const folder = path.dirname(pluginPath);
  const taken = await takeFolder(folder, undefined);
  const keys = unlockFolder(folder, asked);
  const statistics = new Statistics();
  const replacements = new OpenReplacements(folder);
  const options = {
    folder,
    allowPaths: [],
    trustPluginFiles: false,
    present: undefined,
    write: undefined,
    mountId: randomGuid(),
    keys,
  };
  const filter = new Filter(options, statistics, BlockCache.ofOneThread(cacheBytes), log, replacements);
  const sources = new SourceWatch(GateMemory.allocate(maxFillThreads), defaultSourceTimeoutMs, log);
  const threads = new FillThreads({ sources, firstCell: 0, blockBytes: cacheBytes, indexBytes: defaultIndexBytes });
  const turns = new FillTurns(defaultFillJobs);
  const fills = new Fills(replacements, {
    threads,
    turns,
    rate: new SharedRate(),
    statistics,
    log,
    isOpen: () => false,
  });
  return {
    answer: async (request) => await answerFill(fills, filter, request),
    look: () => {
      sources.look();
      fills.look();
    },
    async close() {
      await fills.stop();
      filter.close();
      replacements.close();
      taken.close();
    },
  };
}
