/**
 * When the points of a chain were made, for rules that keep one of each day: as their images say it, unless that runs against the order in which
 * they were made on each other. That order is certain; the clock of a machine may have been wrong for one image or for a while.
 *
 * Of each line of a chain, as many times as possible that do not go back are believed; between two ways the later images are. A time before there
 * were such images, as a clock without a battery has it, is believed only where there is no other. A point whose
 * time is not believed counts as made with the one before it. Points that were consolidated into others count as well, so that what is believed
 * does not change when they have gone.
 */
import { firstIndex } from '../../base/search.ts';
import type { Guid } from '../../bytes/guid.ts';
import type { FolderImage } from '../read/folder-images.ts';

/** No image of this kind is older. */
const firstImageMs = Date.UTC(2020, 0, 1);

export interface ChainTime {
  readonly atMs: number;
  /** False where the image itself says another time. */
  readonly isBelieved: boolean;
}

interface Point {
  readonly imageId: Guid;
  readonly sequence: number;
  readonly saysMs: number;
  readonly parentId: Guid | undefined;
}

/** @param images of one chain; @returns by identity, also of points that the images were made from */
export function chainTimes(images: readonly FolderImage[]): ReadonlyMap<Guid, ChainTime> {
  const points = pointsOf(images);
  const parents = new Set([...points.values()].map(({ parentId }) => parentId));
  const tips = [...points.values()].filter(({ imageId }) => !parents.has(imageId));
  const times = new Map<Guid, ChainTime>();
  for (const tip of tips.sort((a, b) => b.sequence - a.sequence || (a.imageId < b.imageId ? -1 : 1))) {
    const line: Point[] = [];
    let next: Point | undefined = tip;
    // A line that is decided already goes on below it. No sequence goes up: a forged provenance makes no loop.
    while (next !== undefined && !times.has(next.imageId)) {
      line.unshift(next);
      const parent: Point | undefined = next.parentId === undefined ? undefined : points.get(next.parentId);
      next = parent !== undefined && parent.sequence < next.sequence ? parent : undefined;
    }
    decide(line, next === undefined ? undefined : times.get(next.imageId)?.atMs, times);
  }
  return times;
}

function pointsOf(images: readonly FolderImage[]): Map<Guid, Point> {
  const points = new Map<Guid, Point>();
  for (const { description, sources } of images) {
    for (const [index, { imageId, sequence, createdAt }] of sources.entries()) {
      const parentId = sources[index + 1]?.imageId ?? description.parent?.imageId;
      if (!points.has(imageId)) points.set(imageId, { imageId, sequence, saysMs: createdAt.getTime(), parentId });
    }
  }
  return points;
}

/** @param line oldest first; @param notBeforeMs what counts for the point that its first one was made on */
function decide(line: readonly Point[], notBeforeMs: number | undefined, times: Map<Guid, ChainTime>): void {
  const possible = longestRising(line, Math.max(notBeforeMs ?? 0, firstImageMs));
  const believed = possible.size > 0 ? possible : longestRising(line, notBeforeMs ?? Number.NEGATIVE_INFINITY);
  const first = line.find((point) => believed.has(point))?.saysMs;
  let atMs = notBeforeMs ?? first ?? 0;
  for (const point of line) {
    const isBelieved = believed.has(point);
    if (isBelieved) atMs = point.saysMs;
    times.set(point.imageId, { atMs, isBelieved: isBelieved || point.saysMs === atMs });
  }
}

/** The longest row of points whose times do not go back (patience sorting); of several, the one that ends earliest. */
function longestRising(line: readonly Point[], notBeforeMs: number): Set<Point> {
  /** The last point of the best row of each length. */
  const ends: Point[] = [];
  const before = new Map<Point, Point | undefined>();
  for (const point of line) {
    if (point.saysMs < notBeforeMs) continue;
    const length = firstIndex(ends.length, (index) => (ends[index]?.saysMs ?? 0) > point.saysMs);
    before.set(point, ends[length - 1]);
    ends[length] = point;
  }
  const row = new Set<Point>();
  for (let point = ends.at(-1); point !== undefined; point = before.get(point)) row.add(point);
  return row;
}
