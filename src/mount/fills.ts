/** The fills of a mount: which native files are being filled, what may be asked of them, and how they go on after a mount. */
import { UsageError } from '../base/errors.ts';
import { KeyRing } from '../backup/key-ring.ts';
import { sealingKey } from '../plugin/resolve.ts';
import { freeze, thaw } from '../replacement/decrypt.ts';
import {
  finalizeFiles,
  isInPlace,
  requireFinalizable,
  type FinalizedFile,
  type Placed,
} from '../replacement/finalize.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import { releaseCopies } from '../replacement/release.ts';
import type { SharedReplacement } from '../replacement/shared.ts';
import { changeState, servesAlone, stateOf } from '../replacement/states.ts';
import type { Proof } from '../replacement/prove.ts';
import { FillJob, type FillContext, type FillOptions, type FillStatus, type FillTarget } from './fill-job.ts';
import type { NativeDisk, NativeDiskFile } from './natives.ts';
import type { OpenReplacements } from './replacements.ts';
import type { ServingTransport } from './transport.ts';

/** What starts a fill by itself: one that an earlier mount has begun is polite, and verifies. */
export const defaultFillOptions: FillOptions = { isPolite: true, isVerified: true };

export interface Finalized {
  /** The path of what the plugin file is kept as. */
  readonly record: string;
  readonly decrypted: readonly { readonly name: string; readonly bytes: number }[];
}

export class Fills {
  readonly #replacements: OpenReplacements;
  readonly #context: FillContext;
  readonly #mounted: Pick<ServingTransport, 'place' | 'settled'> | undefined;
  readonly #jobs = new Map<string, FillJob>();

  /** @param mounted what serves the disks to others */
  constructor(
    replacements: OpenReplacements,
    context: FillContext,
    mounted?: Pick<ServingTransport, 'place' | 'settled'>,
  ) {
    this.#replacements = replacements;
    this.#context = context;
    this.#mounted = mounted;
  }

  /** @throws UsageError where there is nothing to fill; CapacityError, UnavailableError */
  start(disk: NativeDisk, options: FillOptions): void {
    for (const file of disk.files.filter((each) => !isPlaced(disk, each))) {
      const job = this.#job(disk, file);
      if (servesAlone(job.parts)) continue;
      // So that every thread uses it from now on.
      this.#context.statistics.counters(file.name).set('replaced', 1);
      job.start(options);
    }
  }

  async pause(disk: NativeDisk): Promise<void> {
    for (const job of this.#started(disk)) {
      await job.stop();
      // It may have come to its end meanwhile.
      if (!servesAlone(job.parts)) changeState(job.parts, new PresenceMap(job.parts.presence), 'paused');
    }
  }

  /** @throws UsageError unless it is paused */
  resume(disk: NativeDisk, options: FillOptions): void {
    const jobs = this.#started(disk);
    if (!jobs.some((job) => job.state === 'paused' || job.state === 'filling'))
      throw new UsageError(`${disk.name}: no fill of it is paused; start one with: veneer fill start`);
    for (const job of jobs) if (job.state === 'paused' || job.state === 'filling') job.start(options);
  }

  /** Gives back what was copied; what the guest wrote stays. */
  async cancel(disk: NativeDisk): Promise<void> {
    for (const job of this.#started(disk)) {
      await job.stop();
      changeState(job.parts, new PresenceMap(job.parts.presence), 'intercepting');
      releaseCopies(job.parts);
    }
  }

  /** Of every file of the disk that has a replacement. */
  status(disk: NativeDisk): FillStatus[] {
    return replacedFiles(disk).map((file) => this.#job(disk, file).status());
  }

  statusOfAll(): FillStatus[] {
    return [...this.#jobs.values()].map((job) => job.status());
  }

  async prove(disk: NativeDisk): Promise<{ name: string; proof: Proof }[]> {
    const proofs: { name: string; proof: Proof }[] = [];
    for (const file of replacedFiles(disk))
      proofs.push({ name: file.name, proof: await this.#job(disk, file).prove() });
    if (proofs.length === 0) throw new UsageError(`${disk.name}: nothing was written to it or copied yet`);
    return proofs;
  }

  /**
   * @param decrypts whether a sealed replacement may become a plain file
   * @throws UsageError where it is not complete, or sealed without `decrypts`, or open; CapacityError, UnavailableError
   */
  async finalize(disk: NativeDisk, decrypts: boolean): Promise<Finalized> {
    const inPlace: FinalizedFile[] = [];
    const replaced: (FinalizedFile & { name: string; parts: SharedReplacement; job: FillJob })[] = [];
    for (const file of disk.files) {
      const { path } = file.replacement.place;
      if (!file.isReplaced()) throw new UsageError(`${disk.name}: is not filled; start with: veneer fill start`);
      if (isPlaced(disk, file)) {
        inPlace.push({ path, parts: undefined });
        continue;
      }
      const job = this.#job(disk, file);
      replaced.push({ name: file.name, path, parts: job.parts, job });
    }
    const sealed = replaced.filter(({ parts }) => parts.seal !== undefined);
    if (sealed.length > 0 && !decrypts) {
      throw new UsageError(
        `${disk.name}: its disk file is sealed; veneer finalize --decrypt puts a plain one in its place, which anybody can read who can read the file`,
      );
    }
    for (const { parts } of sealed) requireFinalizable(parts);
    if (sealed.some(({ name }) => this.#context.statistics.counters(name).get('openNow') > 0))
      throw new UsageError(`${disk.name}: is open; what is sealed is decrypted while no guest uses it`);
    const stopped: FinalizedFile[] = [];
    let placed: Placed;
    try {
      for (const file of sealed) {
        freeze(file.parts);
        stopped.push(file);
      }
      for (const { job, path } of sealed) await job.decrypt(path);
      placed = finalizeFiles(disk.pluginPath, [...replaced, ...inPlace], this.#mounted?.place);
    } catch (error) {
      // What is in its place by now is not written here any more.
      for (const { path, parts } of stopped)
        if (parts !== undefined && (path === disk.pluginPath || !isInPlace(path))) thaw(parts);
      throw error;
    }
    for (const file of disk.files) this.#jobs.delete(file.replacement.key);
    // Else the next mount removes it.
    if ((await this.#mounted?.settled()) !== false) placed.clearAway();
    const decrypted = sealed.map(({ name, job }) => ({ name, bytes: job.status().decrypted?.ofBytes ?? 0 }));
    return { record: placed.record, decrypted };
  }

  /** Goes on with what an earlier mount has begun. */
  takeUp(disk: NativeDisk): void {
    for (const file of replacedFiles(disk)) {
      const job = this.#job(disk, file);
      if (job.state === 'filling') job.start(defaultFillOptions);
    }
  }

  setRate(bytesPerSecond: number): void {
    this.#context.rate.bytesPerSecond = bytesPerSecond;
  }

  look(): void {
    for (const job of this.#jobs.values()) job.look();
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#jobs.values()].map((job) => job.stop()));
  }

  #started(disk: NativeDisk): FillJob[] {
    const jobs = replacedFiles(disk).map((file) => this.#job(disk, file));
    if (jobs.every((job) => stateOf(job.parts) === 'intercepting'))
      throw new UsageError(`${disk.name}: no fill of it was started; start one with: veneer fill start`);
    return jobs;
  }

  #job(disk: NativeDisk, file: NativeDiskFile): FillJob {
    const { key, place, discard } = file.replacement;
    if (discard)
      throw new UsageError(`${disk.name}: its writes are to be discarded; mount with --write intercept to fill it`);
    const { plugin, pluginPath, allowed, keys } = file.synthesized;
    const parts = this.#replacements.acquire(key, place, discard, () =>
      sealingKey(plugin, pluginPath, allowed, new KeyRing(keys)).toThread(),
    );
    let job = this.#jobs.get(key);
    if (job === undefined || job.parts !== parts) {
      const target: FillTarget = { name: file.name, place: file.synthesized };
      job = new FillJob(target, parts, this.#context);
      this.#jobs.set(key, job);
    }
    return job;
  }
}

/** Those that have a replacement, and are not in their places yet. */
function replacedFiles(disk: NativeDisk): NativeDiskFile[] {
  return disk.files.filter((file) => file.isReplaced() && !isPlaced(disk, file));
}

/** Whether an interrupted `finalize` has come so far. */
function isPlaced(disk: NativeDisk, { replacement }: NativeDiskFile): boolean {
  return replacement.place.path !== disk.pluginPath && isInPlace(replacement.place.path);
}
