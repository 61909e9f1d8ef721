/**
 * The plain disk file of a sealed replacement that serves alone, made beside it as NAME.replacement-plain.veneer-part. Nobody may write meanwhile
 * (`freeze`). Whatever an interrupted attempt has left is made anew.
 *
 * Durable when it returns, under its unfinished name: finalize.ts gives it the plugin file's.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { flushFile, openUnfinished, resizeFile, unfinishedPathOf } from '../base/durable.ts';
import { CapacityError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { writeFully } from '../base/full-io.ts';
import { formatBytes } from '../base/units.ts';
import { plainPathOf } from '../plugin/beside.ts';
import type { DataFile } from '../replacement/data-file.ts';
import { unitBytes } from '../replacement/layout.ts';
import { PresenceMap } from '../replacement/presence-map.ts';
import { dataFileOf, requireSound, shared, sizeOf, writing, type SharedReplacement } from '../replacement/shared.ts';

/** From now on writes are refused, until `thaw`. @throws UnavailableError when they are already, or an earlier flush failed */
export function freeze(parts: SharedReplacement): void {
  const map = new PresenceMap(parts.presence);
  map.locked('flush', 0, () =>
    map.allUnitsLocked(() => {
      requireSound(parts);
      Atomics.store(new BigInt64Array(parts.numbers), shared.writing, writing.frozen);
    }),
  );
}

export function thaw(parts: SharedReplacement): void {
  Atomics.compareExchange(new BigInt64Array(parts.numbers), shared.writing, writing.frozen, writing.allowed);
}

/**
 * @param filePath of the native file
 * @param report told after each unit how many of those that hold data are done
 * @throws CapacityError when there is no room for it; UnavailableError
 */
export function writePlain(
  parts: SharedReplacement,
  filePath: string,
  report: (doneUnits: number, ofUnits: number) => void = () => undefined,
): void {
  const file = dataFileOf(parts, new PresenceMap(parts.presence));
  const sizeBytes = sizeOf(parts);
  const plainPath = plainPathOf(filePath);
  const unfinished = unfinishedPathOf(plainPath);
  fs.rmSync(unfinished, { force: true });
  requireRoom(parts, filePath);
  const fd = openUnfinished(plainPath, 'empty', fileModes.replacementPlain);
  const bytes = new Uint8Array(unitBytes);
  try {
    resizeFile(fd, sizeBytes, unfinished);
    let ofUnits = 0;
    for (const { from, to } of runsOfUnits(file, sizeBytes)) ofUnits += Math.ceil((to - from) / unitBytes);
    let doneUnits = 0;
    for (const { from, to } of runsOfUnits(file, sizeBytes)) {
      for (let at = from; at < to; at += unitBytes) {
        const part = bytes.subarray(0, Math.min(unitBytes, to - at));
        file.read(part, at);
        writeFully(fd, part, at, unfinished);
        report(++doneUnits, ofUnits);
      }
    }
    flushFile(fd, unfinished);
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/** Runs of units with data in them; the last may end inside one, with the file. */
function* runsOfUnits(file: DataFile, sizeBytes: number): Generator<{ from: number; to: number }> {
  for (let at = file.nextData(0); at !== undefined && at < sizeBytes;) {
    const from = at - (at % unitBytes);
    const hole = file.nextHole(at) ?? sizeBytes;
    const to = Math.min(sizeBytes, Math.ceil(hole / unitBytes) * unitBytes);
    yield { from, to };
    at = file.nextData(to);
  }
}

/** Told before minutes of copying, not after. */
function requireRoom({ dataFd }: SharedReplacement, filePath: string): void {
  const neededBytes = fs.fstatSync(dataFd).blocks * 512;
  const { bavail, bsize } = fs.statfsSync(path.dirname(filePath));
  if (bavail * bsize >= neededBytes) return;
  throw new CapacityError(
    `${filePath}: the plain disk file needs ${formatBytes(neededBytes)} beside the sealed one, and ${formatBytes(bavail * bsize)} are free; free some space and run it again`,
  );
}
