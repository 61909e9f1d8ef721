/** The map in memory against a plain array, and its locks. */
import { describe, expect, it } from 'vitest';
import { presentBit, unitsPerPage, writtenBit } from '../../src/replacement/layout.ts';
import { bothBits, newPresence, pageOf, PresenceMap } from '../../src/replacement/presence-map.ts';
import { seededTest } from '../seeded.ts';

const unitCount = 2 * unitsPerPage + 1;
/** Around the borders of words and pages. */
const units = [0, 1, 14, 15, 16, 17, 31, 32, 47, unitsPerPage - 1, unitsPerPage, unitsPerPage + 16, 2 * unitsPerPage];

function newMap(): PresenceMap {
  return new PresenceMap(newPresence(unitCount));
}

describe('the map in memory', () => {
  it('has room for whole pages', () => {
    expect(newMap().pageCount).toBe(3);
    expect(newMap().unitCount).toBe(3 * unitsPerPage);
    expect(new PresenceMap(newPresence(unitsPerPage)).pageCount).toBe(1);
  });

  it('keeps the bits of each unit apart', () => {
    const map = newMap();
    for (const unit of units) {
      expect(map.set(unit, presentBit)).toBe(true);
      expect(map.set(unit, presentBit)).toBe(false);
      expect([map.get(Math.max(0, unit - 1)) & writtenBit, map.get(unit), map.get(unit + 1)]).toEqual([
        0,
        presentBit,
        0,
      ]);
      expect(map.isPresent(unit)).toBe(true);
      expect(map.set(unit, bothBits)).toBe(true);
      expect(map.get(unit)).toBe(bothBits);
      map.clear(unit);
      expect([map.get(unit), map.isPresent(unit)]).toEqual([0, false]);
    }
    map.set(40, writtenBit);
    expect(map.isPresent(40)).toBe(false);
  });

  it('counts units, and finds the end of a run, as an array does', () => {
    const random = seededTest('runs of a presence map');
    const map = newMap();
    const model = new Uint8Array(map.unitCount);
    for (let run = 0; run < 60; run++) {
      const first = random.below(3 * 64);
      const bits = random.pick([presentBit, writtenBit, bothBits]);
      for (let unit = first; unit < first + random.pick([1, 15, 16, 17, 40]); unit++) {
        map.set(unit, bits);
        model[unit] = (model[unit] ?? 0) | bits;
      }
      for (const counted of [presentBit, writtenBit, bothBits])
        expect(map.count(counted)).toBe(model.filter((found) => (found & counted) === counted).length);
      for (let probe = 0; probe < 20; probe++) {
        const [from, end] = [random.below(250), random.between(1, 300)];
        const wanted = ((model[from] ?? 0) & presentBit) !== 0;
        let expected = from + 1;
        while (expected < end && (((model[expected] ?? 0) & presentBit) !== 0) === wanted) expected++;
        expect(map.runEnd(from, wanted, end)).toBe(expected);
      }
    }
  });

  it('tells each page that has changed once, until it is given back', () => {
    const map = newMap();
    expect(map.takeDirtyPages()).toEqual([]);
    map.set(unitsPerPage - 1, presentBit);
    map.set(2 * unitsPerPage, presentBit);
    expect(map.takeDirtyPages()).toEqual([0, 2]);
    map.set(2 * unitsPerPage, presentBit);
    expect(map.takeDirtyPages()).toEqual([]);
    map.markDirty([1]);
    expect(map.takeDirtyPages()).toEqual([1]);
    expect([unitsPerPage - 1, unitsPerPage].map(pageOf)).toEqual([0, 1]);
  });

  it('shows the bytes of a page as they are', () => {
    const map = newMap();
    const page = map.page(1);
    map.set(unitsPerPage + 5, writtenBit);
    expect([...page.subarray(0, 3)]).toEqual([0, writtenBit * 4, 0]);
    expect(page.length).toBe(unitsPerPage / 4);
  });
});

describe('the locks of the map', () => {
  it('change the turn of the units that they are of, and of no others', () => {
    const map = newMap();
    const before = [map.turnOf(6, 8), map.turnOf(8, 9)];
    map.locked('unit', 7, () => {
      expect(map.turnOf(6, 8)).toBeUndefined();
      expect([map.turnOf(6, 7), map.turnOf(8, 9)]).toEqual([0, before[1]]);
    });
    expect(map.turnOf(6, 8)).not.toBe(before[0]);
    expect(map.turnOf(8, 9)).toBe(before[1]);
    const after = map.turnOf(6, 8);
    for (const kind of ['page', 'flush', 'end'] as const)
      map.locked(kind, 7, () => expect(map.turnOf(6, 8)).toBe(after));
  });

  it('of all units are held together, and given back also after a failure', () => {
    const map = newMap();
    const held = (): unknown[] => [0, 1, 1022, 1023, 1024].map((unit) => map.turnOf(unit, unit + 1));
    map.allUnitsLocked(() => expect(held()).toEqual(Array(5).fill(undefined)));
    expect(held()).toEqual([2, 2, 2, 2, 2]);
    const failing = (): never => {
      throw new Error('failed');
    };
    expect(() => map.allUnitsLocked(failing)).toThrow('failed');
    expect(() => map.locked('unit', 3, failing)).toThrow('failed');
    expect(map.locked('unit', 3, () => map.locked('page', 3, () => map.locked('flush', 0, () => 'reached')))).toBe(
      'reached',
    );
    expect(held()).toEqual([4, 4, 4, 4, 4]);
  });
});
