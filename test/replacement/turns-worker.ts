/** Writes something at each turn that it is given, as soon as it is given, while another thread does something near it. */
import { teamMember } from '../../src/base/worker-team.ts';
import { unitBytes } from '../../src/replacement/layout.ts';
import { Replacement, type SharedReplacement } from '../../src/replacement/replacement.ts';

export interface TurnsJob {
  readonly parts: SharedReplacement;
  readonly turns: number;
  /** Units from one turn's to the next one's. */
  readonly stride: number;
  /** What every byte is, in the base and, where it is one byte that is written, as written; longer writes are all the turn's number. */
  readonly byte: number;
  readonly lengthBytes: number;
  /** The turn that is given, from 1, and the last that is done. */
  readonly counters: SharedArrayBuffer;
}

teamMember<TurnsJob, never>(({ parts, turns, stride, byte, lengthBytes, counters: memory }) => {
  const counters = new Int32Array(memory);
  const base = { sizeBytes: parts.baseBytes, read: (target: Uint8Array) => void target.fill(byte) };
  const replacement = new Replacement(parts, base);
  for (let turn = 1; turn <= turns; turn++) {
    while (Atomics.load(counters, 0) < turn);
    replacement.write(Buffer.alloc(lengthBytes, lengthBytes === 1 ? byte : turn), turn * stride * unitBytes);
    Atomics.store(counters, 1, turn);
  }
});
