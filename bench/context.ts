/** What every benchmark is given: where to work, how long, and how to end early. */

export interface BenchContext {
  /** Folder of data that is made once; mounts and outputs lie below it too. Absolute. */
  readonly folder: string;
  /** The guest's disk, in MiB. */
  readonly sizeMib: number;
  /** Rounds that are measured. In each, all contenders take their turns. */
  readonly rounds: number;
  /** Length of one measured run of fio. */
  readonly seconds: number;
  /** Transports of `veneer mount` to measure, the best first. */
  readonly transports: readonly string[];
  /** Add a processor profile of our own servers. */
  readonly profile: boolean;
  /** Aborted by Ctrl-C and the like. */
  readonly signal: AbortSignal;
  /** Says how far it is; not part of the results. */
  readonly say: (text: string) => void;
}

/** Measures, and returns what it found in Markdown. It has cleaned up when it settles. */
export type Benchmark = (context: BenchContext) => Promise<string>;
