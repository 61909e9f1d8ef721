/** The fills of a mount: which native files are being filled, what may be asked of them, and how they go on after a mount. */
import * as fs from '../base/fs.ts';
import { assert, UnavailableError, UsageError } from '../base/errors.ts';
import type { ThreadKey } from '../backup/crypto/seal.ts';
import { imagesOf } from '../plugin/plugin-file.ts';
import type { SynthesizedPlace } from '../plugin/synthesized.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import type { SharedReplacement } from '../replacement/shared.ts';
import { changeState, servesAlone, stateOf } from '../replacement/states.ts';
import { openPath } from '../base/open-path.ts';
import type { OpenReplacements } from '../replacement/replacements.ts';
import { freeze, thaw } from './decrypt.ts';
import {
  finalizeFiles,
  isInPlace,
  requireFinalizable,
  type FinalizedFile,
  type Placed,
  type Placement,
  type Placing,
} from './finalize.ts';
import { releaseCopies } from './release.ts';
import { FillJob, type FillContext, type FillOptions, type FillTarget } from './job.ts';
import type { FillMessage } from './thread.ts';
import type { Fillable, FillableFile } from './fillable.ts';
import type { FileProof, FillStatus, Finalized } from './fill-status.ts';

/** What starts a fill by itself: one that an earlier mount has begun is polite, and verifies. */
export const defaultFillOptions: FillOptions = { isPolite: true, isVerified: true };

/** What nobody ends. */
const never = new AbortController().signal;

/** What serves the disks to others. */
export interface Mounted {
  /** Of a file that the mount shows: who has it open, and what the kernel knows of it, goes on with the disk file. */
  readonly place: Placing;
  /** Resolves when no thread is at a request any more that it began before: false when one does not come to its end. */
  settled(): Promise<boolean>;
}

export class Fills {
  readonly #replacements: OpenReplacements;
  readonly #context: FillContext;
  readonly #mounted: Mounted | undefined;
  /** One for each open replacement. */
  readonly #jobs = new Map<SharedReplacement, FillJob>();
  /** By the chains of a plugin file's images. */
  readonly #sealingKeys = new Map<string, ThreadKey>();

  /** @param mounted what serves the disks to others */
  constructor(replacements: OpenReplacements, context: FillContext, mounted?: Mounted) {
    this.#replacements = replacements;
    this.#context = context;
    this.#mounted = mounted;
  }

  /** @throws UsageError where there is nothing to fill; CapacityError, UnavailableError */
  async start(disk: Fillable, options: FillOptions): Promise<void> {
    for (const file of disk.files.filter((each) => !isPlaced(disk, each))) {
      const job = await this.#job(disk, file);
      if (servesAlone(job.parts)) continue;
      // So that every thread uses it from now on.
      this.#context.statistics.counters(file.name).set('replaced', 1);
      job.start(options);
    }
  }

  async pause(disk: Fillable): Promise<void> {
    for (const job of await this.#started(disk)) {
      await job.stop();
      // It may have come to its end meanwhile.
      if (!servesAlone(job.parts)) changeState(job.parts, new PresenceMap(job.parts.presence), 'paused');
    }
  }

  /** @throws UsageError unless it is paused */
  async resume(disk: Fillable, options: FillOptions): Promise<void> {
    const jobs = await this.#started(disk);
    if (!jobs.some((job) => job.state === 'paused' || job.state === 'filling'))
      throw new UsageError(`${disk.name}: no fill of it is paused; start one with: veneer fill start`);
    for (const job of jobs) if (job.state === 'paused' || job.state === 'filling') job.start(options);
  }

  /**
   * Gives back what was copied; what the guest wrote stays.
   * @throws UsageError where the image cannot be opened: what was copied of it may be all that is left
   */
  async cancel(disk: Fillable): Promise<void> {
    await this.#requireImages(disk);
    for (const job of await this.#started(disk)) {
      await job.stop();
      changeState(job.parts, new PresenceMap(job.parts.presence), 'intercepting');
      releaseCopies(job.parts);
    }
  }

  /** Of every file of the disk that has a replacement. */
  async status(disk: Fillable): Promise<FillStatus[]> {
    return (await this.#replaced(disk)).map((job) => job.status());
  }

  statusOfAll(): FillStatus[] {
    return [...this.#jobs.values()].map((job) => job.status());
  }

  async prove(disk: Fillable): Promise<FileProof[]> {
    const proofs: FileProof[] = [];
    for (const job of await this.#replaced(disk)) proofs.push({ name: job.target.name, proof: await job.prove() });
    if (proofs.length === 0) throw new UsageError(`${disk.name}: nothing was written to it or copied yet`);
    return proofs;
  }

  /**
   * @param decrypts whether a sealed replacement may become a plain file
   * @throws UsageError where it is not complete, or sealed without `decrypts`, or open; CapacityError, UnavailableError
   */
  async finalize(disk: Fillable, decrypts: boolean): Promise<Finalized> {
    const inPlace: FinalizedFile[] = [];
    const replaced: (FinalizedFile & { name: string; parts: SharedReplacement; job: FillJob })[] = [];
    for (const file of disk.files) {
      const { path } = file.replacement.place;
      if (!file.isReplaced()) throw new UsageError(`${disk.name}: is not filled; start with: veneer fill start`);
      if (isPlaced(disk, file)) {
        inPlace.push({ path, parts: undefined });
        continue;
      }
      const job = await this.#job(disk, file);
      replaced.push({ name: file.name, path, parts: job.parts, job });
    }
    const sealed = replaced.filter(({ parts }) => parts.seal !== undefined);
    if (sealed.length > 0 && !decrypts) {
      throw new UsageError(
        `${disk.name}: its disk file is sealed; veneer finalize --decrypt puts a plain one in its place, which anybody can read who can read the file`,
      );
    }
    for (const { parts } of sealed) requireFinalizable(parts);
    if (sealed.length > 0 && this.#context.isOpen(fs.statSync(disk.pluginPath, { bigint: true })))
      throw new UsageError(`${disk.name}: is open; what is sealed is decrypted while no guest uses it`);
    const stopped: FinalizedFile[] = [];
    let placed: Placed;
    try {
      for (const file of sealed) {
        freeze(file.parts);
        stopped.push(file);
      }
      for (const { job, path } of sealed) await job.decrypt(path);
      placed = finalizeFiles(disk.pluginPath, [...replaced, ...inPlace], this.#placement(disk));
    } catch (error) {
      // What is in its place by now is not written here any more.
      for (const { path, parts } of stopped)
        if (parts !== undefined && (path === disk.pluginPath || !isInPlace(path, parts.pluginId))) thaw(parts);
      throw error;
    }
    for (const { job } of replaced) this.#forget(job);
    // Else the next mount removes it.
    if ((await this.#mounted?.settled()) !== false) placed.clearAway();
    const decrypted = sealed.map(({ name, job }) => ({ name, bytes: job.status().decrypted?.ofBytes ?? 0 }));
    return { record: placed.record, decrypted };
  }

  /** Goes on with what an earlier mount has begun. */
  async takeUp(disk: Fillable): Promise<void> {
    for (const job of await this.#replaced(disk)) {
      if (job.state === 'filling') job.start(defaultFillOptions);
    }
  }

  setRate(bytesPerSecond: number): void {
    this.#context.rate.bytesPerSecond = bytesPerSecond;
  }

  look(): void {
    for (const job of this.#jobs.values()) {
      job.look();
      // Its files were removed with its plugin file: nobody will ever read what is copied into them.
      if (job.isGone) void job.stop().then(() => this.#forget(job));
    }
    this.#context.threads.look();
  }

  /** @returns whether all threads have ended; those that have not change nothing any more */
  async stop(): Promise<boolean> {
    const jobs = [...this.#jobs.values()];
    await Promise.all(jobs.map((job) => job.stop()));
    for (const job of jobs) this.#forget(job);
    return await this.#context.threads.close();
  }

  #placement(disk: Fillable): Placement {
    return {
      place: this.#mounted?.place ?? ((_file, rename) => rename()),
      whileNamesStay: (action) =>
        this.#replacements.signals.whileNamesStay(() => {
          fs.closeSync(openPlugin(disk));
          return action();
        }),
    };
  }

  #forget(job: FillJob): void {
    this.#jobs.delete(job.parts);
    job.close();
  }

  /** Of those that have a replacement, and are not in their places yet. */
  async #replaced(disk: Fillable): Promise<FillJob[]> {
    const jobs: FillJob[] = [];
    for (const file of disk.files.filter((each) => each.isReplaced() && !isPlaced(disk, each)))
      jobs.push(await this.#job(disk, file));
    return jobs;
  }

  async #started(disk: Fillable): Promise<FillJob[]> {
    const jobs = await this.#replaced(disk);
    if (jobs.every((job) => stateOf(job.parts) === 'intercepting'))
      throw new UsageError(`${disk.name}: no fill of it was started; start one with: veneer fill start`);
    return jobs;
  }

  async #job(disk: Fillable, file: FillableFile): Promise<FillJob> {
    const { replacement } = file;
    if (replacement.discard)
      throw new UsageError(`${disk.name}: its writes are to be discarded; mount with --write intercept to fill it`);
    const chainKey = replacement.place.isSealed ? await this.#sealingKey(file.synthesized()) : undefined;
    const pluginFd = openPlugin(disk);
    try {
      const parts = this.#replacements.acquire({ ...replacement, pluginFd, makes: true }, () => {
        assert(chainKey !== undefined, 'a sealed replacement was asked for without its key');
        return chainKey;
      });
      assert(parts !== undefined, 'a replacement was to be made, and was not');
      const known = this.#jobs.get(parts);
      if (known !== undefined) return known;
      const target: FillTarget = { name: file.name, place: () => file.synthesized() };
      const job = new FillJob(target, parts, openPath(`/proc/self/fd/${pluginFd}`, true), this.#context);
      this.#jobs.set(parts, job);
      return job;
    } finally {
      fs.closeSync(pluginFd);
    }
  }

  /** Looked at in a thread, since an image may not answer. */
  async #requireImages({ name, files }: Fillable): Promise<void> {
    const place = files[0]?.synthesized();
    if (place === undefined) return;
    const image = { opens: false, why: 'it does not answer' };
    const hear = (message: FillMessage): void => {
      if (message.kind === 'image') image.opens = true;
      if (message.kind === 'source failed') image.why = message.message;
    };
    await this.#context.threads.run({ step: 'image', place, isPolite: false }, 1, this, never, hear);
    if (image.opens) return;
    throw new UsageError(
      `${name}: its image cannot be opened, and what was copied of it may be all that is left; put the image back first, or let the copy be (${image.why})`,
    );
  }

  /** Read in a thread, since an image may have to be read for it, and may not answer. */
  async #sealingKey(place: SynthesizedPlace): Promise<ThreadKey> {
    const chains = imagesOf(place.plugin)
      .map(({ chainId }) => chainId)
      .join();
    const known = this.#sealingKeys.get(chains);
    if (known !== undefined) return known;
    let found: ThreadKey | undefined;
    let why = `${place.pluginPath}: its key could not be read`;
    const hear = (message: FillMessage): void => {
      if (message.kind === 'key') found = message.key;
      if (message.kind === 'source failed') why = message.message;
    };
    await this.#context.threads.run({ step: 'key', place, isPolite: false }, 1, this, never, hear);
    if (found === undefined) throw new UnavailableError(why, { retryable: true });
    this.#sealingKeys.set(chains, found);
    return found;
  }
}

/** The plugin file that the disk was found by, and no other that has its name by now. @throws UnavailableError */
function openPlugin({ name, pluginPath, stat }: Fillable): number {
  const fd = openPath(pluginPath);
  const { dev, ino } = fs.fstatSync(fd, { bigint: true });
  if (dev === stat.dev && ino === stat.ino) return fd;
  fs.closeSync(fd);
  throw new UnavailableError(`${name}: was replaced a moment ago; try again`, { retryable: true });
}

/** Whether an interrupted `finalize` has come so far. */
function isPlaced(disk: Fillable, { replacement: { place } }: FillableFile): boolean {
  return place.path !== disk.pluginPath && isInPlace(place.path, place.pluginId);
}
