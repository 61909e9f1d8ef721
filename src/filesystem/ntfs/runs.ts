/** Runs of clusters: where the data of an attribute lies, as mapping pairs write it down. */
import { FormatError } from '../../base/errors.ts';

export interface Run {
  /** Cluster of the attribute. */
  readonly first: number;
  readonly count: number;
  /** Cluster of the volume; undefined for a hole. */
  readonly cluster: number | undefined;
}

/**
 * The runs of one attribute record: pairs of length and signed distance from the run before.
 * @param first the attribute's cluster that they begin with
 * @param clusterCount of the volume: no run passes its end
 * @param at the record's offset on the volume, for errors
 */
export function decodeRuns(pairs: Uint8Array, first: number, clusterCount: number, at: number): Run[] {
  const wrong = (detail: string): FormatError => new FormatError('NTFS runs', 'mapping pair', at, detail);
  const runs: Run[] = [];
  let next = first;
  let cluster = 0;
  for (let offset = 0; ;) {
    const head = pairs[offset];
    if (head === undefined) throw wrong('the pairs have no end');
    if (head === 0) return runs;
    const countBytes = head % 16;
    const distanceBytes = Math.floor(head / 16);
    if (
      countBytes === 0 ||
      countBytes > 8 ||
      distanceBytes > 8 ||
      offset + 1 + countBytes + distanceBytes > pairs.length
    )
      throw wrong(`a pair of ${countBytes} and ${distanceBytes} bytes`);
    const count = signed(pairs, offset + 1, countBytes);
    if (count <= 0 || next + count > Number.MAX_SAFE_INTEGER) throw wrong(`a run of ${count} clusters`);
    if (distanceBytes === 0) {
      runs.push({ first: next, count, cluster: undefined });
    } else {
      cluster += signed(pairs, offset + 1 + countBytes, distanceBytes);
      if (cluster < 0 || cluster + count > clusterCount)
        throw wrong(`clusters ${cluster} to ${cluster + count} of ${clusterCount}`);
      runs.push({ first: next, count, cluster });
    }
    next += count;
    offset += 1 + countBytes + distanceBytes;
  }
}

/** The inverse, for runs that begin with the attribute's first cluster or go on without a gap; with the closing zero. */
export function encodeRuns(runs: readonly Run[]): Uint8Array {
  const pairs: number[] = [];
  let before = 0;
  for (const { count, cluster } of runs) {
    const length = signedBytes(count);
    const distance = cluster === undefined ? [] : signedBytes(cluster - before);
    pairs.push(distance.length * 16 + length.length, ...length, ...distance);
    before = cluster ?? before;
  }
  return Uint8Array.from([...pairs, 0]);
}

/** Runs with more clusters behind them; what lies side by side becomes one. */
export function appendClusters(runs: readonly Run[], added: readonly Omit<Run, 'first'>[]): Run[] {
  const all = [...runs];
  for (const { count, cluster } of added) {
    const last = all.at(-1);
    if (last?.cluster !== undefined && last.cluster + last.count === cluster)
      all.splice(-1, 1, { ...last, count: last.count + count });
    else all.push({ first: last === undefined ? 0 : last.first + last.count, count, cluster });
  }
  return all;
}

/** As few bytes, little-endian, as keep the number and its sign. */
function signedBytes(value: number): number[] {
  let length = 1;
  while (value < -(2 ** (8 * length - 1)) || value >= 2 ** (8 * length - 1)) length++;
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigInt64(0, BigInt(value), true);
  return [...bytes.subarray(0, length)];
}

/** A signed little-endian number; one that is not a safe integer comes out too large for any volume. */
function signed(bytes: Uint8Array, at: number, length: number): number {
  let value = 0;
  for (let index = length - 1; index >= 0; index--) value = value * 256 + (bytes[at + index] ?? 0);
  return (bytes[at + length - 1] ?? 0) >= 0x80 ? value - 2 ** (8 * length) : value;
}
