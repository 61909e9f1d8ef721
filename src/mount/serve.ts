/**
 * Serves one mount from this process until it is unmounted: a transport answers the kernel; the main thread does the rest (control socket,
 * signals, looking after what is idle).
 */
import * as fs from '../base/fs.ts';
import { availableParallelism } from 'node:os';
import { describeError, UnavailableError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import { BlockCache, sumsShare } from '../backup/block-cache.ts';
import type { ThreadKeys } from '../backup/key-ring.ts';
import { unlockFolder } from '../backup/unlock-folder.ts';
import type { FormatName } from '../native/formats.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import { separateRecords } from '../replacement/record.ts';
import { SharedRate } from '../replacement/pace.ts';
import { endOnCrash } from './crash.ts';
import { serveControl, type MountStatus } from './control.ts';
import { answerFill } from './fill-requests.ts';
import { defaultFillOptions, Fills } from './fills.ts';
import { Filter } from './filter.ts';
import { serveFuseNative } from './fuse-native/transport.ts';
import { KernelTransport, type KernelOptions } from './kernel/transport.ts';
import { InodeNumbers } from './inode-numbers.ts';
import { openLog } from './log.ts';
import { clearLeftovers } from './seen-leftovers.ts';
import { mountFiles, removeRecord, writeRecord, type MountRecord } from './mount-record.ts';
import { isMountpoint, prepareMount, unmount } from './mountpoint.ts';
import type { Log } from './native-file-state.ts';
import type { NativeDisk } from './natives.ts';
import { OpenReplacements } from './replacements.ts';
import { Statistics } from './statistics.ts';
import type { ServingTransport } from './transport.ts';

export interface MountOptions {
  readonly allowPaths: readonly string[];
  readonly present: FormatName | undefined;
  /** What becomes of writes to native files; undefined: what each plugin file says. */
  readonly write: WriteMode | undefined;
  /** For encrypted images. They go to this process's threads, and nowhere else. */
  readonly keys: ThreadKeys;
  /** Memory for what is kept of images: inflated blocks, and the indexes that lead to them. */
  readonly cacheBytes: number;
  /** An image that nobody read for this long is closed. */
  readonly idleMs: number;
  /** `auto`: the kernel's own protocol where it works, fuse-native elsewhere. */
  readonly transport: TransportChoice;
  /** Threads that answer, of the kernel transport. */
  readonly workers: number;
  /** Whether every disk of the mounted folder is filled. */
  readonly fill: boolean;
  /** What all fills share; 0: as fast as it goes. */
  readonly fillBytesPerSecond: number;
}

export const transportChoices = ['auto', 'kernel', 'fuse-native'] as const;
export type TransportChoice = (typeof transportChoices)[number];

export const defaultCacheBytes = 256 * MiB;
export const defaultIdleMs = 60_000;
/** With a single one, a slow request (a block to inflate) would hold up all others. */
export const defaultWorkers = Math.max(2, availableParallelism());
export const maxWorkers = 64;
/** What earlier mounts at the same place have logged is kept up to this size. */
const maxOldLogBytes = MiB;
/** How often the main thread looks for idle images and for an unmount from outside. */
const lookEveryMs = 500;

/** What index pages and merged leaves take of the budget, in all threads together; a small budget keeps a quarter for blocks. */
const indexBytes = 80 * MiB;

/** What is left for blocks, with the page sums that come on top of them. */
function blockShare(cacheBytes: number): number {
  return Math.floor(Math.max(cacheBytes / 4, cacheBytes - indexBytes) / (1 + sumsShare));
}

export interface ServedMount {
  readonly record: MountRecord;
  /** What a user may want to know: that nothing here reads as a disk yet. */
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
  const real = await prepareMount(folder, mountpoint);
  const options = { ...asked, keys: unlockFolder(real.folder, asked.keys) };
  const files = mountFiles(real.mountpoint);
  const logFd = fs.openSync(files.log, 'a', 0o600);
  if (fs.fstatSync(logFd).size > maxOldLogBytes) fs.ftruncateSync(logFd, 0);
  const log = openLog(logFd, real.mountpoint);
  const statistics = new Statistics(Statistics.allocate(options.workers + 1));
  const replacements = new OpenReplacements();
  const cache = BlockCache.ofOneThread(blockShare(options.cacheBytes));
  const numbers = InodeNumbers.allocate();
  const filter = new Filter({ folder: real.folder, ...options, numbers }, statistics, cache, log, replacements);
  clearLeftovers(real.folder, log);
  separateAll(real.folder, log);
  // A mode that arrives here has met the umask of who asked already.
  process.umask(0);
  const transport = await startTransport(filter, real, options, { statistics, replacements, logFd, log, numbers });
  const letGo = endOnCrash(real.mountpoint, log);
  const record = { pid: process.pid, ...real, transport: transport.name, startedAt: new Date().toISOString() };
  // So that status shows every plugin file from the start.
  filter.list(filter.root);
  writeRecord(record);
  log('info', 'mounted', { folder: real.folder, transport: transport.name });

  let end: (() => void) | undefined;
  const gone = new Promise<void>((resolve) => (end = resolve));
  const stop = async (): Promise<void> => {
    if (isMountpoint(real.mountpoint)) await unmount(real.mountpoint, true);
    end?.();
  };
  const fills = new Fills(replacements, { rate: fillRate(options), statistics, log }, transport);
  for (const disk of filter.disks()) startFill(fills, disk, options, log);
  const control = serveControl(files.socket, (request) => {
    if (request.command === 'fill') return answerFill(fills, filter, request);
    if (request.command === 'stop') setImmediate(() => end?.());
    return statusOf(record, options, statistics, transport, fills);
  });
  const look = setInterval(() => {
    fills.look();
    if (!transport.look()) void stop();
    if (!isMountpoint(real.mountpoint)) end?.();
  }, lookEveryMs);
  const ended = gone.then(async () => {
    clearInterval(look);
    control.close();
    await fills.stop();
    await transport.close();
    closeReplacements(replacements, log);
    removeRecord(real.mountpoint);
    letGo();
    log('info', 'unmounted', {});
  });
  return { record, hint: hintOf(filter, options), ended, stop };
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
function startFill(fills: Fills, disk: NativeDisk, { fill }: MountOptions, log: Log): void {
  try {
    if (fill) fills.start(disk, defaultFillOptions);
    else fills.takeUp(disk);
  } catch (error) {
    log('warn', `${disk.name}: is not filled: ${describeError(error)}`, { file: disk.name });
  }
}

/** @throws UnavailableError: nothing is mounted then */
async function startTransport(
  filter: Filter,
  real: { readonly folder: string; readonly mountpoint: string },
  options: MountOptions,
  shared: Pick<KernelOptions, 'statistics' | 'replacements' | 'logFd'> & {
    readonly log: Log;
    readonly numbers: SharedArrayBuffer;
  },
): Promise<ServingTransport> {
  const { log, numbers } = shared;
  let whyNotKernel = '';
  if (options.transport !== 'fuse-native') {
    try {
      const { allowPaths, present, write, keys } = options;
      const filterOptions = { folder: real.folder, allowPaths, present, write, keys, numbers };
      return await KernelTransport.start(
        {
          ...options,
          ...shared,
          cacheBytes: blockShare(options.cacheBytes),
          filter: filterOptions,
          replacementKeyOf: (place) => filter.replacementKeyOf(place),
          mountpoint: real.mountpoint,
        },
        log,
      );
    } catch (error) {
      if (isMountpoint(real.mountpoint)) await unmount(real.mountpoint, true);
      if (options.transport === 'kernel')
        throw new UnavailableError(`${real.mountpoint}: cannot be mounted`, { cause: error });
      whyNotKernel = describeError(error);
      log('warn', `the kernel transport does not work here, fuse-native is tried: ${whyNotKernel}`, {});
    }
  }
  try {
    return await serveFuseNative(filter, real.mountpoint, options.idleMs, log);
  } catch (error) {
    const first = whyNotKernel === '' ? '' : ` (kernel transport: ${whyNotKernel})`;
    throw new UnavailableError(`${real.mountpoint}: cannot be mounted${first}`, { cause: error });
  }
}

/** What was written is flushed, or thrown away. A failure is told, and ends nothing else. */
function closeReplacements(replacements: OpenReplacements, log: Log): void {
  try {
    replacements.close();
  } catch (error) {
    log('error', `what was written may not all be on disk: ${describeError(error)}`, {});
  }
}

function statusOf(
  record: MountRecord,
  options: MountOptions,
  statistics: Statistics,
  transport: ServingTransport,
  fills: Fills,
): MountStatus {
  return {
    ...record,
    serving: transport.status(),
    cacheBudgetBytes: options.cacheBytes,
    residentBytes: process.memoryUsage.rss(),
    log: mountFiles(record.mountpoint).log,
    files: statistics.snapshot(),
    fills: fills.statusOfAll(),
  };
}

/** With images but no plugin file, and none presented, the mount shows nothing new. */
function hintOf(filter: Filter, options: MountOptions): string | undefined {
  const { images, natives } = filter.count();
  if (natives > 0 || options.present !== undefined || images === 0) return undefined;
  return `no plugin file here yet, but ${images} image${images === 1 ? '' : 's'}: make one with veneer plugin create, or mount with --present vhdx to show every image as a disk`;
}
