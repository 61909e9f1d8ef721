/** Indexes as kmod's own modprobe reads them: its tries, not the text. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { moduleName, writeIndexes } from '../../../src/guest/linux/module-index.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { run } from '../../filesystem/trees.ts';

it('modprobe finds modules by name and by any alias, with all that they need', () => {
  using folder = new TempFolder();
  const random = seededTest('module index');
  const modules = Array.from({ length: 120 }, (_, index) => {
    const file = `kernel/drivers/${random.pick(['block', 'scsi', 'net-2'])}/driver-${index}${random.pick(['', '_x', '-more'])}.ko`;
    return { name: moduleName(file), file, needs: [] as string[] };
  });
  for (const [index, one] of modules.entries()) {
    const need = modules[random.below(Math.max(1, index))];
    if (need !== undefined && need !== one) one.needs.push(need.file);
  }
  const aliases = modules.flatMap(({ name }, index) => [
    [`pci:v0000${(0x1000 + index).toString(16).toUpperCase()}d*sv*sd*bc*sc*i*`, name] as const,
    [`virtio:d${String(index).padStart(8, '0')}v*`, name] as const,
    [`of:N*T*Cmaker,part-${index}`, name] as const,
  ]);
  const place = folder.file('lib/modules/1.2.3');
  for (const { file } of modules) {
    fs.mkdirSync(path.join(place, path.dirname(file)), { recursive: true });
    fs.writeFileSync(path.join(place, file), '');
  }
  for (const [name, contents] of writeIndexes(modules, [...aliases, ['pci:other', 'not_there']])) {
    // Only the tries are left to it.
    if (name.endsWith('.bin')) fs.writeFileSync(path.join(place, name), contents);
  }
  const ask = (wanted: string): string[] =>
    run('modprobe', '--dirname', folder.path, '--set-version', '1.2.3', '--show-depends', wanted)
      .trim()
      .split('\n')
      .map((line) =>
        line
          .replace(/^insmod /, '')
          .replace(`${place}/`, '')
          .trim(),
      );
  for (const index of [0, 1, 7, 63, 119]) {
    const one = modules[index];
    const wanted = [...(one?.needs ?? []), one?.file];
    for (const name of [
      one?.name ?? '',
      `pci:v0000${(0x1000 + index).toString(16).toUpperCase()}d0000AAAAsv1sd2bc3sc4i5`,
      `virtio:d${String(index).padStart(8, '0')}v00001AF4`,
      `of:N1T2Cmaker,part-${index}`,
    ])
      expect(ask(name), name).toEqual(wanted);
  }
  expect(() => ask('pci:other')).toThrow();
});
