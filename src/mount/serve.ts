/**
 * Serves one mount from this process until it is unmounted: a transport answers the kernel; the main thread does the rest (control socket,
 * signals, looking after what is idle).
 */
import * as fs from '../base/fs.ts';
import { availableParallelism } from 'node:os';
import { describeError, UnavailableError, isShortage } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { openOwnFile } from '../base/own-files.ts';
import { GateMemory } from '../base/source-gate.ts';
import type { Closable } from '../base/ownership.ts';
import { BlockCache } from '../backup/read/block-cache.ts';
import type { ThreadKeys } from '../backup/crypto/key-ring.ts';
import { unlockFolder } from '../backup/read/unlock-folder.ts';
import { randomGuid } from '../bytes/guid.ts';
import type { FormatName } from '../native/formats.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import { separateRecords } from '../replacement/record.ts';
import { fillAnswers } from '../fill/answers.ts';
import { SharedRate } from '../fill/pace.ts';
import { serveControl } from '../mounts/control.ts';
import { threadsPerFill } from '../fill/job.ts';
import { FillThreads, maxFillThreads } from '../fill/threads.ts';
import { FillTurns } from '../fill/turns.ts';
import { defaultFillOptions, Fills } from '../fill/fills.ts';
import { mountFiles, removeRecord, writeRecord, type MountRecord } from '../mounts/mount-record.ts';
import type { MountStatus } from '../mounts/mount-status.ts';
import { isMountpoint, prepareMount, unmount } from '../mounts/mountpoint.ts';
import type { Log } from '../base/log.ts';
import type { Fillable } from '../fill/fillable.ts';
import { OpenReplacements } from '../replacement/replacements.ts';
import { takeFolder } from '../mounts/served-folder.ts';
import { sourceText, SourceWatch, watchEveryMs } from '../base/source-watch.ts';
import { Statistics, type FileStatistics } from '../fill/statistics.ts';
import { raiseFileLimit } from '../base/system-calls.ts';
import { endOnCrash } from './crash.ts';
import { Filter } from './filter.ts';
import { maxBeside } from './kernel/beside.ts';
import { InodeNumbers } from './inode-numbers.ts';
import { MountLog } from './log.ts';
import { LogLimit } from './log-limit.ts';
import { divideCache } from './memory-budget.ts';
import { clearLeftovers } from './seen-leftovers.ts';
import { Survey } from './survey.ts';
import type { ServingTransport } from './transport.ts';
import { startTransport } from './transports.ts';

export interface MountOptions {
  readonly allowPaths: readonly string[];
  /** See FilterOptions. */
  readonly trustPluginFiles: boolean;
  readonly present: FormatName | undefined;
  /** What becomes of writes to native files; undefined: what each plugin file says. */
  readonly write: WriteMode | undefined;
  /** For encrypted images. They go to this process's threads, and nowhere else. */
  readonly keys: ThreadKeys;
  /** Memory for what is kept of images: inflated blocks, and the indexes that lead to them. */
  readonly cacheBytes: number;
  /** An image that nobody read for this long is closed. */
  readonly idleMs: number;
  /** Of transports.ts. */
  readonly transport: string;
  /** Threads that answer, of the kernel transport. */
  readonly workers: number;
  /** Whether every disk of the mounted folder is filled. */
  readonly fill: boolean;
  /** What all fills share; 0: as fast as it goes. */
  readonly fillBytesPerSecond: number;
  /** Fills that work at once. */
  readonly fillJobs: number;
  /** A read of an image that takes longer fails. */
  readonly sourceTimeoutMs: number;
}

const { O_RDWR, O_APPEND } = fs.constants;
export const defaultIdleMs = 60_000;
/** With a single one, a slow request (a block to inflate) would hold up all others. */
export const defaultWorkers = Math.max(2, availableParallelism());
export const maxWorkers = 64;
/** How often the main thread looks for idle images and for an unmount from outside. */
const lookEveryMs = 500;
/** Half of them for files that the kernel remembers, the others for what is open, images and threads. */
const minOpenFiles = 256;
/** In a folder of so many files that it takes longer, disks show in `status` a little later. */
const surveyedWithinMs = 1000;

export interface ServedMount {
  readonly record: MountRecord;
  /** What a user may want to know, line by line: that nothing here reads as a disk yet, that nothing can be written. */
  readonly hint: string | undefined;
  /** Resolves when the mount is gone, whoever unmounted it. */
  readonly ended: Promise<void>;
  /** Takes the mount away, though files in it may be open. */
  stop(): Promise<void>;
}

/**
 * Mounts `folder` at `mountpoint` and serves it. Resolves when it serves.
 * @throws UsageError, UnavailableError: nothing is mounted then
 */
export async function serveMount(folder: string, mountpoint: string, asked: MountOptions): Promise<ServedMount> {
  requireFiles();
  const real = await prepareMount(folder, mountpoint);
  const taken = await takeFolder(real.folder, real.mountpoint);
  try {
    return await serve(real, asked, taken);
  } catch (error) {
    taken.close();
    throw error;
  }
}

/** @param taken the folder, which is given back at the end */
async function serve(
  real: { readonly folder: string; readonly mountpoint: string },
  asked: MountOptions,
  taken: Closable,
): Promise<ServedMount> {
  const options = { ...asked, keys: unlockFolder(real.folder, asked.keys) };
  const files = mountFiles(real.mountpoint);
  const logFd = openOwnFile(files.log, O_RDWR | O_APPEND, fileModes.log);
  const limit = new LogLimit();
  const mountLog = new MountLog(logFd, real.mountpoint, limit);
  const { log } = mountLog;
  const threads = options.workers + maxBeside;
  const statistics = new Statistics(Statistics.allocate(threads + 1));
  const replacements = new OpenReplacements(real.folder);
  const shares = divideCache(options.cacheBytes, options.workers, options.fillJobs * threadsPerFill);
  const sources = new SourceWatch(GateMemory.allocate(threads + maxFillThreads), options.sourceTimeoutMs, log);
  const cache = BlockCache.ofOneThread(shares.blockBytes, shares.indexBytes);
  const { allowPaths, trustPluginFiles, present, write, keys } = options;
  const filterOptions = {
    folder: real.folder,
    allowPaths,
    trustPluginFiles,
    present,
    write,
    mountId: randomGuid(),
    keys,
    numbers: InodeNumbers.allocate(),
  };
  const filter = new Filter(filterOptions, { statistics, cache, log, replacements });
  clearLeftovers(real.folder, log);
  separateAll(real.folder, log);
  // A mode that arrives here has met the umask of who asked already.
  process.umask(0);
  const transport = await startTransport(options.transport, {
    filter,
    log,
    options: {
      filter: filterOptions,
      mountpoint: real.mountpoint,
      workers: options.workers,
      cacheBytes: shares.blockBytes,
      indexBytes: shares.indexBytes,
      idleMs: options.idleMs,
      sources,
      statistics,
      replacements,
      logFd,
      logLimit: limit.buffer,
    },
  });
  const letGo = endOnCrash(real.mountpoint, log);
  const record = {
    pid: process.pid,
    ...real,
    transport: transport.name,
    startedAt: new Date().toISOString(),
    allowPaths: [...asked.allowPaths],
  };
  writeRecord(record);
  log('info', 'mounted', { folder: real.folder, transport: transport.name });

  let end: (() => void) | undefined;
  const gone = new Promise<void>((resolve) => (end = resolve));
  const stop = async (): Promise<void> => {
    if (isMountpoint(real.mountpoint)) await unmount(real.mountpoint, true);
    end?.();
  };
  const fills = new Fills(
    replacements,
    {
      threads: new FillThreads({
        sources,
        firstCell: threads,
        blockBytes: shares.fillBlockBytes,
        indexBytes: shares.indexBytes,
      }),
      turns: new FillTurns(options.fillJobs),
      rate: fillRate(options),
      statistics,
      log,
      isOpen: (stat) => transport.isOpen(stat),
    },
    transport,
  );
  const survey = new Survey(filter, (disk) => void startFill(fills, disk, options, log), log);
  const control = serveControl(files.socket, {
    status: () => statusOf(record, options, { statistics, transport, fills, sources }),
    stop: () => {
      setImmediate(() => end?.());
      return {};
    },
    ...fillAnswers(fills, filter),
  });
  const every = (ms: number, action: () => void): NodeJS.Timeout =>
    setInterval(() => {
      try {
        action();
      } catch (error) {
        // The mount does not end by it: what was not looked at now is at the next turn.
        if (!isShortage(error)) throw error;
        log('warn', `the mount is short of files or memory: ${describeError(error)}`, {});
      }
    }, ms);
  const look = every(lookEveryMs, () => {
    fills.look();
    mountLog.tellLeftOut();
    if (!transport.look()) void stop();
    if (!isMountpoint(real.mountpoint)) end?.();
  });
  const watch = every(watchEveryMs, () => {
    sources.look();
    transport.lookAtSources();
  });
  const ended = gone.then(async () => {
    clearInterval(look);
    clearInterval(watch);
    control.close();
    await survey.stop();
    const haveEnded = [await fills.stop(), await transport.close()];
    closeReplacements(replacements, haveEnded.every(Boolean), log);
    removeRecord(real.mountpoint);
    taken.close();
    letGo();
    mountLog.tellLeftOut(true);
    log('info', 'unmounted', {});
  });
  const isWhole = await survey.endsWithin(surveyedWithinMs);
  const hints = [warningOf(real.folder, options.write), isWhole ? hintOf(survey, options) : undefined].filter(
    (line) => line !== undefined,
  );
  return { record, hint: hints.length === 0 ? undefined : hints.join('\n'), ended, stop };
}

/** Each file that the kernel remembers is held open. @throws UnavailableError */
function requireFiles(): void {
  const limit = raiseFileLimit();
  if (limit >= minOpenFiles) return;
  throw new UnavailableError(
    `this process may open ${limit} files at once, and a mount needs ${minOpenFiles}; allow more (ulimit -n ${minOpenFiles}, or nofile in /etc/security/limits.conf)`,
  );
}

/** Before anything looks at them. */
function separateAll(folder: string, log: Log): void {
  for (const name of separateRecords(folder))
    log('warn', `${name}: is a further name of a plugin file, and could not be made another file: it is not shown`, {});
}

function fillRate({ fillBytesPerSecond }: MountOptions): SharedRate {
  const rate = new SharedRate();
  rate.bytesPerSecond = fillBytesPerSecond;
  return rate;
}

/** Goes on with what an earlier mount has begun, or begins. One disk that cannot be filled keeps nobody from the others. */
async function startFill(fills: Fills, disk: Fillable, { fill }: MountOptions, log: Log): Promise<void> {
  try {
    if (fill) await fills.start(disk, defaultFillOptions);
    else await fills.takeUp(disk);
  } catch (error) {
    log('warn', `${disk.name}: is not filled: ${describeError(error)}`, { file: disk.name });
  }
}

/**
 * What was written is flushed, or thrown away. A failure is told, and ends nothing else.
 * @param isLast whether no thread uses them any more; else their descriptors stay open until the process ends
 */
function closeReplacements(replacements: OpenReplacements, isLast: boolean, log: Log): void {
  try {
    replacements.close(isLast);
  } catch (error) {
    log('error', `what was written may not all be on disk: ${describeError(error)}`, {});
  }
}

function statusOf(
  record: MountRecord,
  options: MountOptions,
  {
    statistics,
    transport,
    fills,
    sources,
  }: { statistics: Statistics; transport: ServingTransport; fills: Fills; sources: SourceWatch },
): MountStatus {
  const stuck = sources.status();
  const withReason = (file: FileStatistics): FileStatistics & { reason?: string } => {
    const source = stuck.get(file.source);
    return source === undefined ? file : { ...file, reason: sourceText(source) };
  };
  return {
    ...record,
    serving: transport.status(),
    cacheBudgetBytes: options.cacheBytes,
    residentBytes: process.memoryUsage.rss(),
    log: mountFiles(record.mountpoint).log,
    files: statistics.snapshot().map(withReason),
    sources: [...stuck.values()],
    fills: fills.statusOfAll(),
  };
}

/** What cannot work, though the mount does. */
function warningOf(folder: string, write: WriteMode | undefined): string | undefined {
  if (write === 'none') return undefined;
  try {
    fs.accessSync(folder, fs.constants.W_OK);
    return undefined;
  } catch {
    return `writes are refused: ${folder} is read-only`;
  }
}

/** With images but no plugin file, and none presented, the mount shows nothing new. */
function hintOf({ images, natives }: Survey, options: MountOptions): string | undefined {
  if (natives > 0 || options.present !== undefined || images === 0) return undefined;
  return `no plugin file here yet, but ${images} image${images === 1 ? '' : 's'}: make one with veneer plugin create, or mount with --present vhdx to show every image as a disk`;
}
