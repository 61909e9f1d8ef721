/**
 * A hive of the guest's file system that is edited: read with its logs, replayed, and put back as edits of the files.
 *
 * What is put back is the replayed hive with the edits, marked clean. The first sector of each log is zeroed, so that no log can apply
 * to it. Only bytes that differ are edits.
 */
import { UnsupportedError } from '../../base/errors.ts';
import { changedRuns } from '../../filesystem/edit/changed-runs.ts';
import type { FileEdit, FilesByPath } from '../../filesystem/by-path.ts';
import { HiveEditor } from './registry/edit.ts';
import { binsStartBytes, logSectorBytes, maxHiveBytes } from './registry/layout.ts';
import { replayLogs, type Replayed } from './registry/log-replay.ts';

const logSuffixes = ['.LOG1', '.LOG2', '.LOG'] as const;

export class LoadedHive {
  readonly path: string;
  readonly editor: HiveEditor;
  readonly state: Replayed['state'];
  readonly warnings: readonly string[];
  readonly #fileSystem: FilesByPath;
  readonly #original: Uint8Array;
  readonly #replayed: Uint8Array;
  readonly #logs: readonly string[];
  #edited = false;

  /** @throws FormatError when it is no sound hive; UsageError where there is no such file */
  constructor(fileSystem: FilesByPath, path: string) {
    this.path = path;
    this.#fileSystem = fileSystem;
    this.#original = fileSystem.readFile(path, maxHiveBytes);
    this.#logs = logSuffixes
      .map((suffix) => `${path}${suffix}`)
      .filter((log) => (fileSystem.stat(log)?.sizeBytes ?? 0) > 0);
    const replayed = replayLogs(
      this.name,
      this.#original,
      this.#logs.map((log) => fileSystem.readFile(log, maxHiveBytes)),
    );
    this.state = replayed.state;
    this.#replayed = replayed.bytes;
    this.warnings =
      replayed.state === 'dirty without logs'
        ? [
            `${path}: was not written to its end, and no log applies to it; what Windows had not yet written is lost, and it is marked clean`,
          ]
        : [];
    // New bins may take what the file has behind its last one, and the rest of its last cluster.
    const room = Math.min(Math.max(replayed.bytes.length, fileSystem.roomOf(path)), maxHiveBytes);
    const padded = new Uint8Array(room);
    padded.set(replayed.bytes);
    this.editor = new HiveEditor(this.name, padded);
  }

  get name(): string {
    return this.path.split('/').at(-1) ?? this.path;
  }

  /** To be called when something was changed: without it nothing is put back. */
  touch(): void {
    this.#edited = true;
  }

  /**
   * What makes the file hold the hive as it is now: nothing where nothing was changed.
   * @throws UnsupportedError when the replayed hive is longer than its file's room
   */
  edits(): FileEdit[] {
    if (!this.#edited) return [];
    const committed = this.editor.commit();
    const length = Math.max(
      this.#original.length,
      this.#replayed.length,
      binsStartBytes + this.editor.hive.base.binsLength,
    );
    if (length > Math.max(this.#original.length, this.#fileSystem.roomOf(this.path)))
      throw new UnsupportedError(
        `${this.path}: has grown in its logs to ${length} bytes and its file has room for ${this.#fileSystem.roomOf(this.path)}; ` +
          'start the guest once on its old hardware and shut it down',
      );
    const after = committed.subarray(0, length);
    const edits = changedRuns(this.#original, after).map(({ offset, length: runLength }) => ({
      path: this.path,
      fileOffset: offset,
      after: after.slice(offset, offset + runLength),
    }));
    return [...edits, ...this.#logs.flatMap((log) => this.#emptied(log))];
  }

  #emptied(log: string): FileEdit[] {
    const file = this.#fileSystem.open(log);
    const sector = new Uint8Array(Math.min(logSectorBytes, file.sizeBytes));
    file.read(sector, 0);
    if (sector.every((byte) => byte === 0)) return [];
    return [{ path: log, fileOffset: 0, after: new Uint8Array(sector.length) }];
  }
}
