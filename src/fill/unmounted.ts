/**
 * The fills of a folder that is not mounted: its plugin files are found by name, and this process copies. The folder must have been taken
 * (mounts/served-folder.ts): nobody else writes to its disks meanwhile.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { closeAll, type Closable } from '../base/ownership.ts';
import { currentPath, openPath } from '../base/open-path.ts';
import { isUnfinishedName } from '../base/durable.ts';
import { GateMemory } from '../base/source-gate.ts';
import { defaultSourceTimeoutMs, SourceWatch } from '../base/source-watch.ts';
import { MiB } from '../base/units.ts';
import type { Log } from '../base/log.ts';
import { defaultIndexBytes } from '../backup/read/index-cache.ts';
import type { ThreadKeys } from '../backup/crypto/key-ring.ts';
import { unlockFolder } from '../backup/read/unlock-folder.ts';
import { randomGuid } from '../bytes/guid.ts';
import { synthesizeFiles } from '../native/formats.ts';
import { ownershipOf } from '../plugin/authors.ts';
import { maxPluginFileBytes, parsePluginFile } from '../plugin/plugin-file.ts';
import type { AllowedPaths } from '../plugin/reach.ts';
import { ownContent } from '../source/own-content.ts';
import { isRecordName } from '../replacement/record.ts';
import { OpenReplacements } from '../replacement/replacements.ts';
import { fillAnswers, type FillableFolder } from './answers.ts';
import { fillableOf, notFillable, type Fillable } from './fillable.ts';
import { Fills } from './fills.ts';
import { SharedRate } from './pace.ts';
import type { FillAnswers } from './requests.ts';
import { Statistics } from './statistics.ts';
import { FillThreads, maxFillThreads } from './threads.ts';
import { defaultFillJobs, FillTurns } from './turns.ts';

/** Of each thread that copies. */
const cacheBytes = 16 * MiB;
const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;

/** The fills of a folder that is not mounted. */
export interface UnmountedFills {
  readonly answers: FillAnswers;
  /** To be called now and then. */
  look(): void;
  /** What was under way goes on at the next mount, or the next start. */
  close(): Promise<void>;
}

/**
 * @param taken the folder, which is given back at the end
 * @param asked the keys of its encrypted images
 * @param log where failures are told that do not end a request
 * @throws UsageError where none of the keys opens any of its images
 */
export function openUnmountedFills(folder: string, taken: Closable, asked: ThreadKeys, log: Log): UnmountedFills {
  const keys = unlocked(folder, taken, asked);
  const found = new UnmountedFolder(folder, keys);
  const replacements = new OpenReplacements(folder);
  const sources = new SourceWatch(GateMemory.allocate(maxFillThreads), defaultSourceTimeoutMs, log);
  const fills = new Fills(replacements, {
    threads: new FillThreads({ sources, firstCell: 0, blockBytes: cacheBytes, indexBytes: defaultIndexBytes }),
    turns: new FillTurns(defaultFillJobs),
    rate: new SharedRate(),
    statistics: new Statistics(),
    log,
    isOpen: () => false,
  });
  return {
    answers: fillAnswers(fills, found),
    look: () => {
      sources.look();
      fills.look();
    },
    async close() {
      await fills.stop();
      closeAll([taken, found, replacements]);
    },
  };
}

/** Where it cannot be filled, it is given back at once. */
function unlocked(folder: string, taken: Closable, asked: ThreadKeys): ThreadKeys {
  try {
    return unlockFolder(folder, asked);
  } catch (error) {
    taken.close();
    throw error;
  }
}

/** Held by a descriptor: it may be moved meanwhile. */
class UnmountedFolder implements FillableFolder, Closable {
  readonly #fd: number;
  readonly #keys: ThreadKeys;
  readonly #mountId = randomGuid();

  constructor(folder: string, keys: ThreadKeys) {
    this.#fd = openPath(folder, true);
    this.#keys = keys;
  }

  get path(): string {
    return currentPath(this.#fd);
  }

  disk(file: string): Fillable {
    const name = path.basename(file);
    // What is being made, and what stands for a disk no more, are plugin files by their first bytes alone.
    if (isUnfinishedName(name) || isRecordName(name)) throw notFillable(file);
    const pluginPath = path.join(this.path, file);
    const { bytes, stat, ownership } = readSmall(pluginPath, file);
    if (ownContent(bytes) !== 'plugin file') throw notFillable(file);
    const plugin = parsePluginFile(bytes, pluginPath);
    // A process of root's reads for everybody: plugin files lead it only to what their authors may read.
    const bound = process.getuid?.() === 0 ? { ownership } : {};
    const allowed = (): AllowedPaths => ({ folders: [this.path], ...bound });
    const files = synthesizeFiles(plugin.native, name);
    const context = { write: undefined, mountId: this.#mountId, allowed, keys: this.#keys };
    return fillableOf({ plugin, pluginPath, stat, files }, file, context);
  }

  close(): void {
    fs.closeSync(this.#fd);
  }
}

/** What may be a plugin file, with who may have written it. @throws UsageError for anything else; the system's error */
function readSmall(pluginPath: string, shown: string): ReadPlugin {
  const mayBe = (found: fs.BigIntStats): boolean => found.isFile() && found.size <= maxPluginFileBytes;
  if (!mayBe(fs.lstatSync(pluginPath, { bigint: true }))) throw notFillable(shown);
  const fd = fs.openSync(pluginPath, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const stat = fs.fstatSync(fd, { bigint: true });
    // Something else may have taken its name since.
    if (!mayBe(stat)) throw notFillable(shown);
    return { stat, bytes: fs.readFileSync(fd), ownership: ownershipOf(stat, fd) };
  } finally {
    fs.closeSync(fd);
  }
}

interface ReadPlugin {
  readonly stat: fs.BigIntStats;
  readonly bytes: Uint8Array;
  readonly ownership: ReturnType<typeof ownershipOf>;
}
