/** Every command takes names and folders of any bytes, also relative ones; what a format cannot write into its files is refused in one line. */
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { formatNames } from '../../src/native/formats.ts';
import { TempFolder } from '../temp-folder.ts';
import { run, veneerOk, veneerPath, veneerRefuses } from './veneer.ts';

const script = path.join(import.meta.dirname, 'odd-names.sh');

describe('a disk lives its whole life under', () => {
  it.each([
    ['names that are no UTF-8, and look like surrogates', '-\\351\\355\\240\\200'],
    ['names with line breaks, tabs, colons, quotes, commas and other signs', ':\\n\\ta:b,=\\\\ \\"%%2f#\\047 '],
  ])('%s', async (_what, odd) => {
    using folder = new TempFolder();
    const ran = await run('bash', [script, folder.path, process.execPath, veneerPath, odd]);
    expect(ran.status, ran.stdout + ran.stderr).toBe(0);
    expect(ran.stdout).toMatch(/all is well\n$/);
    // What is printed of such names is text, one line for each.
    expect(ran.stdout + ran.stderr).not.toMatch(/[^\P{C}\n]/u);
  });
});

describe('a name that a format cannot write into its files', () => {
  it('is refused by plugin create and differencing create, in one line, and nothing is made', async () => {
    using folder = new TempFolder();
    const image = folder.file('vm.spf');
    await veneerOk('image', 'create', folder.write('disk.raw', Buffer.alloc(2 ** 20, 7)), image);
    for (const name of ['a\nb.vmdk', 'a"b.vmdk']) {
      const said = await veneerRefuses('plugin', 'create', image, folder.file(name));
      expect(said).toMatch(/cannot be written in a VMDK's descriptor; rename the file/);
    }
    for (const format of formatNames.filter((name) => name === 'vhdx' || name === 'vhd')) {
      const parent = folder.file(`a:b.${format}`);
      await veneerOk('plugin', 'create', image, parent);
      const said = await veneerRefuses('differencing', 'create', parent, folder.file(`child.${format}`));
      expect(said).toMatch(/cannot be written as a Windows path; rename the file/);
    }
    expect(fs.readdirSync(folder.path).sort()).toEqual(['a:b.vhd', 'a:b.vhdx', 'disk.raw', 'vm.spf']);
  });

  it('may have tabs, colons and backslashes in it in a VMDK: QEMU and this tool find its extent', async () => {
    using folder = new TempFolder();
    const image = folder.file('vm.spf');
    const raw = folder.write('disk.raw', Buffer.alloc(2 ** 20, 7));
    await veneerOk('image', 'create', raw, image);
    await veneerOk('plugin', 'create', image, folder.file('a:\t\\b.vmdk'));
    const made = folder.file('out');
    fs.mkdirSync(made);
    await veneerOk('image', 'extract', image, `${made}/a:\t\\b.vmdk`);
    const compared = await run('qemu-img', ['compare', '-f', 'vmdk', '-F', 'raw', `${made}/a:\t\\b.vmdk`, raw]);
    expect(compared.stdout, compared.stderr).toContain('Images are identical');
    await veneerOk('image', 'create', `${made}/a:\t\\b.vmdk`, folder.file('again.spf'));
    await veneerOk('image', 'extract', folder.file('again.spf'), folder.file('again.raw'));
    expect(fs.readFileSync(folder.file('again.raw'))).toEqual(fs.readFileSync(raw));
  });
});
