/**
 * Names are bytes: what lies behind the mount is listed, read, written, renamed and removed through it by the very bytes of its name. Python
 * judges, whose file system calls take bytes. fuse-native's binding hands out text: what it cannot carry it does not show, as no other file.
 */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { run } from '../../cli/veneer.ts';
import { seededTest, soak } from '../../seeded.ts';
import { placeForTest, type MountPlace } from '../mounted.ts';
import { describeTransports } from '../transports.ts';

const model = path.join(import.meta.dirname, 'byte_names.py');
const steps = soak ? 10_000 : 60;

describeTransports('names that are any bytes', ({ name, options }) => {
  it.skipIf(name === 'fuse-native')(
    'are the same files through the mount and behind it, whatever is done to them',
    async () => {
      const { seed } = seededTest('byte names');
      const place = placeForTest();
      await place.mount(...options);
      const ran = await run('python3', [model, place.mountpoint, place.folder, seed, String(steps)]);
      expect(ran.status, ran.stdout + ran.stderr).toBe(0);
      expect(place.complaints()).toEqual([]);
    },
    soak ? 3_600_000 : undefined,
  );

  it('are listed as they are, or left out and said: never as another', async () => {
    const place = placeForTest();
    const names = [Buffer.from('plain'), Buffer.from('caf\xe9', 'latin1'), Buffer.from('caf\xe8', 'latin1')];
    names.push(
      Buffer.from('größe'),
      Buffer.from('new\nline\ttab:colon'),
      Buffer.from('e\u0301'),
      Buffer.from('\u00e9'),
    );
    for (const bytes of names) fs.writeFileSync(behind(place, bytes), bytes);
    await place.mount(...options);
    const shown = await fs.promises.readdir(Buffer.from(place.mountpoint), { encoding: 'buffer' });
    const expected = name === 'kernel' ? names : names.filter((bytes) => !/caf/.test(bytes.toString('latin1')));
    expect(shown.map(String).sort()).toEqual(expected.map(String).sort());
    for (const bytes of names) {
      const read = fs.promises.readFile(under(place, bytes));
      if (expected.includes(bytes)) expect(await read).toEqual(bytes);
      else await expect(read).rejects.toThrow('EILSEQ');
    }
    if (name === 'kernel') return;
    await place.expectComplaint(/2 names that are no UTF-8 are not shown; mount with --transport kernel/);
    await expect(fs.promises.writeFile(under(place, Buffer.of(0xff)), 'x')).rejects.toThrow('EILSEQ');
    expect(fs.readdirSync(place.folder)).toHaveLength(names.length);
  });
});

function behind(place: MountPlace, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${place.folder}/`), name]);
}

function under(place: MountPlace, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${place.mountpoint}/`), name]);
}
