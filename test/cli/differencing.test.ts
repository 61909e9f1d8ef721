/** `veneer differencing create`: children in the folder, opened under the mount by those who keep writes themselves. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import type { FormatName } from '../../src/native/formats.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { openSource } from '../../src/source/open-source.ts';
import { diskBytes, writeDisk } from '../mount/guest-disk.ts';
import { MountPlace } from '../mount/mounted.ts';
import { describeAboveTransports } from '../mount/transports.ts';
import { readRange } from '../native/golden.ts';
import { readWithLibvhdi } from '../native/judges.ts';
import { TempFolder } from '../temp-folder.ts';
import { runOk, veneer, veneerOk, veneerRefuses } from './veneer.ts';

const parents = ['vhdx', 'vhd', 'vmdk', 'vdi', 'qcow2', 'raw'] as const satisfies readonly FormatName[];
const qemuNames = { vhdx: 'vhdx', vhd: 'vpc', vmdk: 'vmdk', vdi: 'vdi', qcow2: 'qcow2', raw: 'raw' } as const;

/** A disk, its image `vm.spf`, and a plugin file `vm.EXT` for each format, in `folder`. */
async function writeParents(folder: string, raw: string): Promise<void> {
  writeDisk(raw, 'differencing');
  await createImage(raw, path.join(folder, 'vm.spf'));
  for (const format of parents) createPluginFile(path.join(folder, 'vm.spf'), path.join(folder, `vm.${format}`));
}

const digestOf = (file: string): string => createHash('sha256').update(fs.readFileSync(file)).digest('hex');

describeAboveTransports('a differencing file beside its parent under the mount', (transport) => {
  let place: MountPlace;
  let raw: string;
  let sources: Map<string, string>;
  /** Copies the raw disk, to be written like the child. */
  const copyOfRaw = (name: string): string => {
    fs.copyFileSync(raw, place.temporary.file(name));
    return place.temporary.file(name);
  };

  beforeAll(async () => {
    place = new MountPlace();
    raw = place.temporary.file('disk.raw');
    await writeParents(place.folder, raw);
    sources = new Map(fs.readdirSync(place.folder).map((name) => [name, digestOf(place.behind(name))]));
    await place.mount(...transport.options);
    return () => place.end();
  });

  it.each(parents)('qcow2 over %s: QEMU finds the disk in it, and writes into it alone', async (parent) => {
    const child = `over-${parent}.qcow2`;
    const said = await veneerOk('differencing', 'create', place.behind(`vm.${parent}`), place.behind(child));
    expect(said).toMatch(/^[^\n]*an empty qcow2 file for changes over [^\n]*\n$/);
    await expectQemuToKeepWrites(child, 'qcow2');
    const info = JSON.parse(await runOk('qemu-img', ['info', '--output=json', place.under(child)])) as unknown;
    expect(info).toMatchObject({
      'backing-filename': `vm.${parent}`,
      'backing-filename-format': qemuNames[parent],
      'full-backing-filename': place.under(`vm.${parent}`),
    });
  });

  it('vmdk over vmdk: QEMU finds the disk in it, and writes into it alone', async () => {
    await veneerOk('differencing', 'create', place.behind('vm.vmdk'), place.behind('child.vmdk'));
    await expectQemuToKeepWrites('child.vmdk', 'vmdk');
  });

  async function expectQemuToKeepWrites(child: string, format: 'qcow2' | 'vmdk'): Promise<void> {
    const file = place.under(child);
    const same = ['compare', '-f', format, '-F', 'raw', file];
    expect(await runOk('qemu-img', [...same, raw])).toContain('Images are identical');
    const changed = copyOfRaw(`${child}.raw`);
    for (const [driver, target] of [
      [format, file],
      ['raw', changed],
    ] as const) {
      const writes = [`write -P 1 0 1M`, `write -P 2 ${5 * MiB - 512} 70k`, `write -P 3 ${diskBytes - 512} 512`];
      const said = await runOk('qemu-io', ['-f', driver, ...writes.flatMap((write) => ['-c', write]), target]);
      expect(said).not.toMatch(/fail|error/i);
    }
    expect(await runOk('qemu-img', ['check', '-f', format, file])).toContain('No errors were found');
    expect(await runOk('qemu-img', [...same, changed])).toContain('Images are identical');
    expect(fs.statSync(place.behind(child)).size).toBeGreaterThan(MiB);
    expectParentsUnchanged();
  }

  it.each(['vhdx', 'vhd'] as const)('%s: libvhdi reads it over its parent', async (format) => {
    const child = `child.${format}`;
    await veneerOk('differencing', 'create', place.behind(`vm.${format}`), place.behind(child));
    const { blocks, size } = fs.statSync(place.under(child));
    expect(blocks * 512, 'Hyper-V refuses files with holes').toBeGreaterThanOrEqual(size);
    const info = await runOk('vhdiinfo', [place.under(child)]);
    expect(info).toMatch(/Disk type\s*: Differential/);
    const pieces = Array.from({ length: Math.ceil(diskBytes / MiB) }, (_, index) => ({
      offset: index * MiB,
      length: Math.min(MiB, diskBytes - index * MiB),
    }));
    const digests = pieces.map(({ offset, length }) => {
      return createHash('sha256')
        .update(readRange(raw, offset, length))
        .digest('hex');
    });
    const [, ...found] = readWithLibvhdi([place.under(child), place.under(`vm.${format}`)], pieces);
    expect(found).toEqual(digests);
    expectParentsUnchanged();
  });

  it.each(['vhdx', 'vhd', 'vmdk', 'qcow2'] as const)('%s: can be the source of an image', async (format) => {
    const child = `source.${format}`;
    await veneerOk('differencing', 'create', place.behind(`vm.${format}`), place.behind(child));
    const disk = openSource(place.under(child));
    try {
      const found = Buffer.alloc(diskBytes);
      disk.read(found, 0);
      expect(found.equals(readRange(raw, 0, diskBytes))).toBe(true);
    } finally {
      disk.close();
    }
  });

  it('is not made over a native file under the mount, which is no plugin file there', async () => {
    const line = await veneerRefuses('differencing', 'create', place.under('vm.vhdx'), place.under('wrong.vhdx'));
    expect(line).toContain('behind the mount');
  });

  function expectParentsUnchanged(): void {
    for (const [name, digest] of sources) expect(digestOf(place.behind(name)), name).toBe(digest);
    expect(fs.readdirSync(place.folder).filter((name) => name.includes('.replacement'))).toEqual([]);
  }
});

describe('veneer differencing create', () => {
  let folder: TempFolder;
  const file = (name: string): string => folder.file(name);

  beforeAll(async () => {
    folder = new TempFolder();
    await writeParents(folder.path, folder.file('disk.img'));
    return () => folder.remove();
  });

  const refuses = async (plugin: string, child: string, ...options: string[]): Promise<string> => {
    const before = folder.names();
    const line = await veneerRefuses('differencing', 'create', plugin, child, ...options);
    expect(folder.names()).toEqual(before);
    return line;
  };

  it('needs no image', async () => {
    using other = new TempFolder();
    fs.copyFileSync(file('vm.vhdx'), other.file('vm.vhdx'));
    await veneerOk('differencing', 'create', other.file('vm.vhdx'), other.file('child.vhdx'));
    expect(other.names()).toEqual(['child.vhdx', 'vm.vhdx']);
  });

  it('tells which formats fit', async () => {
    expect(await refuses(file('vm.vhd'), file('child.vhdx'))).toContain('use .vhd or .qcow2');
    expect(await refuses(file('vm.vdi'), file('child.vdi'))).toContain('use .qcow2');
    expect(await refuses(file('vm.raw'), file('child.raw'))).toContain('use .qcow2');
    expect(await refuses(file('vm.vmdk'), file('child.bin'))).toContain('--format');
    expect(await refuses(file('vm.vmdk'), file('child.bin'), '--format', 'vhdx')).toContain('use .vmdk or .qcow2');
  });

  it('takes the format from --format', async () => {
    await veneerOk('differencing', 'create', file('vm.vmdk'), file('child.disk'), '--format', 'qcow2');
    expect(readRange(file('child.disk'), 0, 4).toString('latin1')).toBe('QFI\xfb');
  });

  it('refuses a child in another folder', async () => {
    using other = new TempFolder();
    expect(await refuses(file('vm.vhdx'), other.file('child.vhdx'))).toContain('another folder');
    expect(await refuses(file('vm.vhdx'), file('missing/child.vhdx'))).toContain('another folder');
    fs.symlinkSync(folder.path, other.file('link'));
    await veneerOk('differencing', 'create', path.join(other.file('link'), 'vm.vhdx'), file('through-link.vhdx'));
  });

  it('warns where the parent has been written to', async () => {
    fs.writeFileSync(file('vm-flat.vmdk.replacement-map'), '');
    const { status, stderr } = await veneer('differencing', 'create', file('vm.vmdk'), file('late.vmdk'));
    expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining('has been written to') as string });
  });

  it('refuses what is no plugin file', async () => {
    expect(await refuses(file('disk.img'), file('child.qcow2'))).toContain('plugin file');
    expect(await refuses(file('nothing'), file('child.qcow2'))).toContain('nothing');
  });

  it('replaces a child only when told to, and an image, a plugin file or a part of its parent never', async () => {
    await veneerOk('differencing', 'create', file('vm.vhd'), file('twice.vhd'));
    const first = digestOf(file('twice.vhd'));
    expect(await refuses(file('vm.vhd'), file('twice.vhd'))).toContain('--force');
    await veneerOk('differencing', 'create', file('vm.vhd'), file('twice.vhd'), '--force');
    expect(digestOf(file('twice.vhd'))).not.toBe(first);
    for (const name of ['vm.spf', 'vm.vhd', 'vm.qcow2', 'vm-flat.vmdk']) {
      await refuses(file('vm.vmdk'), file(name), '--force', '--format', 'qcow2');
    }
  });

  it('writes it at once: what is left of an earlier attempt does not matter', async () => {
    fs.writeFileSync(file('late.qcow2.veneer-part'), Buffer.alloc(3 * MiB, 1));
    await veneerOk('differencing', 'create', file('vm.raw'), file('late.qcow2'));
    expect(folder.names()).not.toContain('late.qcow2.veneer-part');
    expect(fs.statSync(file('late.qcow2')).size).toBeLessThan(MiB);
  });
});
