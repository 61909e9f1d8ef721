/** Names, descriptors and limits of VMDK files. */
import { expect, it } from 'vitest';
import { CapacityError, UsageError } from '../../../src/base/errors.ts';
import { GiB, KiB, MiB, TiB } from '../../../src/base/units.ts';
import { zeroDisk } from '../../../src/disk/zero.ts';
import { vmdk } from '../../../src/native/vmdk/format.ts';
import { factsOf, scatteredFacts } from '../golden.ts';

const flat = vmdk.plan(factsOf(zeroDisk(MiB)), { layout: 'flat' });

it('the extent of a flat disk has the name that VMware gives it', () => {
  const names = vmdk.synthesize(flat, 'Büro 1.vmdk').map((file) => file.name);
  expect(names).toEqual(['Büro 1.vmdk', 'Büro 1-flat.vmdk']);
});

it('a descriptor begins with the line by which QEMU knows it, and names the extent and its offset', () => {
  const [file] = vmdk.synthesize(flat, 'vm.vmdk');
  const text = Buffer.alloc(file?.map.sizeBytes ?? 0);
  file?.map.read(text, 0, () => zeroDisk(0));
  expect(text.toString().split('\n')[0]).toBe('# Disk DescriptorFile');
  expect(text.toString()).toContain('\nRW 2048 FLAT "vm-flat.vmdk" 0\n');
  expect(text.toString()).toContain('\nparentCID=ffffffff\n');
});

it.each(['a"b.vmdk', 'a\nb.vmdk'])('a name that would break out of its quotes is refused: %j', (name) => {
  expect(() => vmdk.synthesize(flat, name)).toThrow(UsageError);
});

it('data that is too scattered for grains of 64 KiB gets larger ones', () => {
  const facts = scatteredFacts(24 * GiB, 64 * KiB, 3);
  expect(vmdk.plan(facts, { layout: 'sparse' })).toMatchObject({ grainBytes: 128 * KiB });
});

it('a full disk of 2 TiB does not fit a sparse file with its tables', () => {
  const facts = scatteredFacts(2 * TiB, 2 * TiB, 1);
  expect(() => vmdk.plan(facts, { layout: 'sparse' })).toThrow(CapacityError);
});
