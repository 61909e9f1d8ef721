/** Names that only the mount has: what is listed is found, what is not listed is not, and each name is one file's. */
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { KiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { Classifier } from '../../src/mount/classify.ts';
import { MadeNames } from '../../src/mount/made-names.ts';
import { NamedPlace } from '../../src/mount/place.ts';
import { namesOfStem, stemOf } from '../../src/mount/presented-name.ts';
import { formatNames, formatOf, namesWithFile, synthesizeFiles } from '../../src/native/formats.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { parsePluginFile } from '../../src/plugin/plugin-file.ts';
import { seededTest, soak, type Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';

const made = new TempFolder();
const oddNames = ['x.vmdk', 'x', '.vmdk', 'a.', 'a.b.vmdk', 'x-flat.vmdk', '-flat', ' ', 'ü.VMDK', '..x', 'x.y-flat.z'];

beforeAll(async () => {
  fs.writeFileSync(made.file('raw'), Buffer.alloc(64 * KiB, 7));
  await createImage(made.file('raw'), made.file('image'));
  createPluginFile(made.file('image'), made.file('disk.vmdk'), { layout: 'flat' });
  createPluginFile(made.file('image'), made.file('disk.raw'));
});

describe('names that only the mount has', () => {
  it('have an inverse: each further file of a disk leads back to its plugin file', () => {
    for (const format of formatNames) {
      const plugin = made.file(`inverse.${format}`);
      createPluginFile(made.file('image'), plugin, { layout: formatOf(format).wholeLayout });
      const { native } = parsePluginFile(fs.readFileSync(plugin), plugin);
      for (const name of oddNames)
        for (const part of synthesizeFiles(native, name).slice(1)) expect(namesWithFile(part.name)).toContain(name);
    }
    for (const name of ['vm', 'vm.spf', 'vm.SPI', 'vm.spf.spi', '.spf', 'spf', 'vm.sPf'])
      expect(namesOfStem(stemOf(name))).toContain(name);
  });

  it('are found where they are listed, and nowhere else', () => {
    const random = seededTest('made names');
    for (let count = 0; count < (soak ? 500 : 25); count++) {
      using folder = new TempFolder();
      for (const name of randomNames(random))
        fs.linkSync(made.file(random.pick(['image', 'disk.vmdk', 'disk.raw', 'raw'])), folder.file(name));
      const place = new NamedPlace(folder.path);
      const names = new MadeNames(new Classifier(), random.pick([undefined, 'vhdx', 'raw']));
      const listed = new Map([...names.list(place)].map((entry) => [entry.name, entry.place]));
      const real = new Set(folder.names());
      const described = `${[...real].join(' ')} -> ${[...listed.keys()].join(' ')}`;
      for (const [name, { at, part }] of listed) {
        expect(real.has(name), described).toBe(false);
        expect(part).toBe(name);
        expect(names.find(place, name)?.at, `${name} in ${described}`).toBe(at);
      }
      for (const name of candidates(random))
        if (!real.has(name)) expect(names.find(place, name)?.at, `${name} in ${described}`).toBe(listed.get(name)?.at);
      const classifier = new Classifier();
      const from = [...real].flatMap((source) => {
        const sourcePlace = new NamedPlace(folder.file(source));
        return [...names.madeFrom(place, source, classifier.classify(sourcePlace, sourcePlace.stat()))];
      });
      expect(from.map((entry) => entry.name).sort()).toEqual([...listed.keys()].sort());
      expect(from.every((entry) => path.dirname(entry.place.at) === folder.path)).toBe(true);
    }
  });
});

const stems = ['vm', 'vm-flat', 'a.b'];
const extensions = ['', '.spf', '.spi', '.SPI', '.vmdk', '.vhdx', '.raw', '.veneer-part', '.spi.vhdx', '.spf.spi'];

function randomNames(random: Seeded): Set<string> {
  return new Set(Array.from({ length: random.between(1, 12) }, () => random.pick(stems) + random.pick(extensions)));
}

/** Everything that could be made of such names. */
function candidates(random: Seeded): string[] {
  const all = stems.flatMap((stem) => extensions.map((extension) => stem + extension));
  return [...all, ...all.flatMap((name) => [`${name}.vhdx`, `${name}.raw`, `${name}-flat`]), random.pick(oddNames)];
}
