/** Placement of qcow2 tables, and the choice of clusters. */
import { expect, it } from 'vitest';
import { CapacityError } from '../../../src/base/errors.ts';
import { GiB, KiB, MiB, TiB } from '../../../src/base/units.ts';
import { place } from '../../../src/native/qcow2/layout.ts';
import { qcow2 } from '../../../src/native/qcow2/format.ts';
import { scatteredFacts } from '../golden.ts';

it.each([64 * KiB, 2 * MiB])(
  'reference counts cover the clusters that hold them, in clusters of %i',
  (clusterBytes) => {
    for (let count = 0; count < 70_000; count += 997) {
      const { totalClusters, refcountBlockCount, refcountTableClusters } = place(TiB, clusterBytes, 3, count);
      expect(refcountBlockCount * (clusterBytes / 2)).toBeGreaterThanOrEqual(totalClusters);
      expect(refcountTableClusters * (clusterBytes / 8)).toBeGreaterThanOrEqual(refcountBlockCount);
    }
  },
);

it('data that is too scattered for clusters of 64 KiB gets larger ones', () => {
  const facts = scatteredFacts(24 * GiB, 64 * KiB, 3);
  expect(qcow2.plan(facts, { layout: 'compact' })).toMatchObject({ clusterBytes: 128 * KiB });
});

it('clusters that were asked for are not changed', () => {
  const facts = scatteredFacts(24 * GiB, 64 * KiB, 3);
  expect(() => qcow2.plan(facts, { layout: 'compact', unitBytes: 64 * KiB })).toThrow(CapacityError);
});

it('a disk with too many clusters for a map gets larger ones', () => {
  const facts = scatteredFacts(64 * TiB, TiB, 3);
  expect(qcow2.plan(facts, { layout: 'compact' })).toMatchObject({ clusterBytes: MiB });
});

it('a full file of 64 TiB has some 4 MiB of tables for each TiB', () => {
  const [file] = qcow2.synthesize(qcow2.plan(scatteredFacts(64 * TiB, TiB, 1), { layout: 'full' }), 'vm.qcow2');
  expect((file?.map.sizeBytes ?? 0) - 64 * TiB).toBeLessThan(64 * 6 * MiB);
});
