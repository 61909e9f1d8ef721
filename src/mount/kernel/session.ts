/** What all handlers of one worker share, and how nodes and handles become bytes of a reply. */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import type { Log } from '../../base/log.ts';
import { systemErrorCode } from '../../base/errors.ts';
import { systemError } from '../../base/system-error.ts';
import { currentPath, isDeleted, openPath } from '../../base/open-path.ts';
import type { Filter } from '../filter.ts';
import { HeldPlace, NamedPlace, type Place } from '../place.ts';
import type { Rights } from '../rights.ts';
import type { OpenFile } from '../open-file.ts';
import type { Attributes } from '../tree.ts';
import type { Backings } from './backings.ts';
import type { NodeTable } from './node-table.ts';
import type { OpenFiles } from './open-files.ts';
import type { OpenTable } from './open-table.ts';
import { attributesOut, entryOut, openOut, rootNode } from './protocol.ts';
import { nsPerSecond } from '../../base/units.ts';

/**
 * How long the kernel may believe a name and its attributes: long enough that a burst of calls asks once, short enough that a change behind
 * the mount shows at once to a person. Of a native file nothing changes but with its plugin file.
 */
const nameValidNanos = 100_000_000;
const nativeAttributesValid = { attributesValidSeconds: 1n, attributesValidNanos: 0 };
const attributesValid = { attributesValidSeconds: 0n, attributesValidNanos: 100_000_000 };

/** What the kernel is told of a file. */
interface Entry {
  readonly node: number;
  readonly generation: number;
  readonly attributes: Attributes;
}

export class Session {
  readonly filter: Filter;
  readonly nodes: NodeTable;
  readonly files: OpenFiles;
  readonly table: OpenTable;
  readonly log: Log;
  readonly backings: Backings;
  readonly rights: Rights;
  /** What this request has given the kernel: taken back when the reply cannot be delivered. */
  readonly #granted: number[] = [];
  #epoch = 0;
  #opened: { slot: number; serial: number } | undefined;

  constructor(
    filter: Filter,
    nodes: NodeTable,
    files: OpenFiles,
    table: OpenTable,
    log: Log,
    backings: Backings,
    rights: Rights,
  ) {
    this.filter = filter;
    this.nodes = nodes;
    this.files = files;
    this.table = table;
    this.log = log;
    this.backings = backings;
    this.rights = rights;
  }

  place(node: number): Place {
    return new HeldPlace(this.nodes.descriptorOf(node), this.nodes.partOf(node));
  }

  /**
   * A change by an open handle. Whoever has it may make it; of an ordinary file it is made with his rights all the same: what he writes to loses
   * its set-id bits, and what he takes of a disk counts as his.
   */
  changeOpen<T>(file: OpenFile, change: () => T): T {
    return file.isNative ? change() : this.rights.asCaller(change);
  }

  /** Before each request. */
  begin(): void {
    this.#epoch = this.nodes.steadyEpoch();
  }

  /** Whether a file has taken another's place since the request began: what was found out of both may be mixed. */
  get isMixed(): boolean {
    return this.nodes.epoch !== this.#epoch;
  }

  /** The node of a name in a folder. @throws ENOENT */
  lookup(folder: Place, name: string): Entry {
    for (;;) {
      this.begin();
      try {
        return this.#lookup(folder, name);
      } catch (error) {
        if (!this.isMixed) throw error;
      }
    }
  }

  #lookup(folder: Place, name: string): Entry {
    if (this.filter.hides(folder, name)) throw systemError('ENOENT', 'lookup', name);
    this.filter.separateRecord(folder, name);
    let fd: number;
    let part = '';
    try {
      fd = openPath(`${folder.at}/${name}`);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw error;
      const made = this.filter.madeChild(folder, name);
      if (made === undefined) throw error;
      fd = openPath(made.at);
      part = made.part;
    }
    return this.enter(fd, part);
  }

  /** A node again, for who has nothing but its number. @throws ESTALE where its file is not found for certain */
  lookupAgain(node: number): Entry {
    if (this.nodes.acquireAgain(node) !== undefined) {
      this.#granted.push(node);
      return this.#entry(node, this.filter.attributes(this.place(node)));
    }
    const place = this.nodes.placeOf(node);
    if (place === undefined || this.filter.hides(new NamedPlace(path.dirname(place.path)), path.basename(place.path)))
      throw stale(node);
    const fd = openPath(place.path);
    if (currentPath(fd) !== place.path || !this.filter.isInside(place.path)) {
      fs.closeSync(fd);
      throw stale(node);
    }
    const found = this.enter(fd, place.part);
    if (found.node !== node) throw stale(node);
    return found;
  }

  /** The folder that a folder lies in. @throws ESTALE where that is none of the mount's */
  lookupParent(node: number): Entry {
    const fd = openPath(`${this.place(node).at}/..`, true);
    if (node === rootNode || !this.filter.isInside(currentPath(fd))) {
      fs.closeSync(fd);
      throw stale(node);
    }
    return this.enter(fd, '');
  }

  /** The node of an O_PATH descriptor, which is given away. */
  enter(fd: number, part: string): Entry {
    let kept = false;
    try {
      const place = new HeldPlace(fd, part);
      const attributes = this.filter.attributes(place);
      const found = this.nodes.acquire(place.stat(), part, fd, this.#epoch);
      kept = found.kept;
      this.#granted.push(found.node);
      return this.#entry(found.node, attributes);
    } finally {
      if (!kept) fs.closeSync(fd);
    }
  }

  granted(opened: { slot: number; serial: number }): void {
    this.#opened = opened;
  }

  /** The kernel has what the request gave it. */
  delivered(): void {
    this.#granted.length = 0;
    this.#opened = undefined;
  }

  /** The kernel will never know of it: the caller was killed meanwhile, or the request failed half-way. */
  undo(): void {
    for (const node of this.#granted) this.forget(node, 1);
    if (this.#opened !== undefined) this.files.release(this.#opened.slot, this.#opened.serial);
    this.delivered();
  }

  forget(node: number, lookups: number): void {
    const gone = this.nodes.forget(node, lookups);
    if (gone === undefined) return;
    try {
      const lay = fs.readlinkSync(`/proc/self/fd/${gone.fd}`);
      if (!isDeleted(lay)) this.nodes.remember(node, gone, lay);
    } catch (error) {
      // In a deep folder its path is not told: it is not found again then.
      if (systemErrorCode(error) !== 'ENAMETOOLONG') throw error;
    } finally {
      fs.closeSync(gone.fd);
    }
  }

  #entry(node: number, attributes: Attributes): Entry {
    return { node, generation: this.nodes.generationOf(node), attributes };
  }
}

function stale(node: number): Error {
  return systemError('ESTALE', 'lookup', `node ${node}`);
}

/** Writes an entry. @returns its length */
export function putEntry(target: Uint8Array, at: number, { node, generation, attributes }: Entry): number {
  entryOut.encode(
    {
      node: BigInt(node),
      generation: BigInt(generation),
      nameValidSeconds: 0n,
      nameValidNanos,
      ...(attributes.isNative ? nativeAttributesValid : attributesValid),
      ...fields(attributes),
    },
    target,
    at,
  );
  return entryOut.sizeBytes;
}

export function putAttributes(target: Uint8Array, attributes: Attributes): number {
  const valid = attributes.isNative ? nativeAttributesValid : attributesValid;
  attributesOut.encode({ ...valid, ...fields(attributes) }, target);
  return attributesOut.sizeBytes;
}

export function putOpen(
  target: Uint8Array,
  at: number,
  handle: { slot: number; serial: number },
  flags: number,
  backing = 0,
): number {
  openOut.encode({ ...handle, flags, backing }, target, at);
  return openOut.sizeBytes;
}

function fields(attributes: Attributes) {
  return {
    inode: attributes.inode,
    sizeBytes: BigInt(attributes.sizeBytes),
    blocks512: BigInt(attributes.blocks512),
    accessedSeconds: attributes.accessedNs / nsPerSecond,
    modifiedSeconds: attributes.modifiedNs / nsPerSecond,
    changedSeconds: attributes.changedNs / nsPerSecond,
    accessedNanos: Number(attributes.accessedNs % nsPerSecond),
    modifiedNanos: Number(attributes.modifiedNs % nsPerSecond),
    changedNanos: Number(attributes.changedNs % nsPerSecond),
    mode: attributes.mode,
    links: attributes.links,
    uid: attributes.uid,
    gid: attributes.gid,
    device: attributes.device,
    blockBytes: 0,
    flags: 0,
  };
}
