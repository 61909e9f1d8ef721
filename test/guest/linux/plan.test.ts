/** Plans for small Linux systems: what is changed in which file, as debugfs and cpio read it, and what is refused and why. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { KiB, MiB } from '../../../src/base/units.ts';
import { openFileDisk } from '../../../src/disk/file.ts';
import { openGuestDisk } from '../../../src/volume/open-disk.ts';
import { planGuest } from '../../../src/guest/plan-guest.ts';
import { type GuestPlan, type Target } from '../../../src/guest/plan.ts';
import { checkPatches } from '../../../src/filesystem/edit/patch.ts';
import { TempFolder } from '../../temp-folder.ts';
import { applyTo, run } from '../../filesystem/trees.ts';
import { menu, version, writeSystem, type SmallSystem } from './small-system.ts';

const partitionStart = MiB;

/** A disk with the system in its only partition, or the bare volume. */
class SmallMachine implements Disposable {
  readonly #folder = new TempFolder();
  readonly image: string;
  readonly #offset: number;

  constructor(kind: 'volume' | 'disk', system: SmallSystem = {}) {
    const tree = this.#folder.file('tree');
    writeSystem(tree, system);
    const volume = this.#blank('volume', 32 * MiB);
    run(
      'mke2fs',
      '-q',
      '-F',
      '-t',
      'ext4',
      '-b',
      '1024',
      '-U',
      '01234567-89ab-cdef-0123-456789abcdef',
      '-d',
      tree,
      volume,
    );
    this.#offset = kind === 'disk' ? partitionStart : 0;
    this.image = this.#blank('image', this.#offset + 32 * MiB);
    if (kind === 'disk') {
      execFileSync('/usr/sbin/sfdisk', ['--quiet', this.image], { input: 'label: dos\nstart=2048, type=83\n' });
      applyTo(this.image, [
        { offsetBytes: 512, before: new Uint8Array(0), after: new Uint8Array(40 * KiB).fill(0xee) },
      ]);
    }
    applyTo(this.image, [{ offsetBytes: this.#offset, before: new Uint8Array(0), after: fs.readFileSync(volume) }]);
  }

  plan(target: Target, options: { wrapped?: boolean; console?: string } = {}): GuestPlan {
    using disk = closing(openFileDisk(this.image));
    const plan = planGuest(openGuestDisk(disk.value), target, { wrapped: false, ...options });
    if (plan === undefined) throw new Error('no system was found');
    return { ...plan, patches: checkPatches(plan.patches, disk.value) };
  }

  apply(plan: GuestPlan): void {
    applyTo(this.image, plan.patches);
    const volume = this.#folder.file('volume');
    fs.writeFileSync(volume, fs.readFileSync(this.image).subarray(this.#offset));
    run('e2fsck', '-fn', volume);
  }

  /** As debugfs reads it after the patches. */
  file(path: string): string {
    return run('debugfs', '-R', `cat ${path}`, this.#folder.file('volume'));
  }

  #blank(name: string, sizeBytes: number): string {
    fs.writeFileSync(this.#folder.file(name), '');
    fs.truncateSync(this.#folder.file(name), sizeBytes);
    return this.#folder.file(name);
  }

  [Symbol.dispose](): void {
    this.#folder.remove();
  }
}

/** What the archive holds, by name, as cpio unpacks it. */
function unpacked(archive: Uint8Array): Map<string, string> {
  using folder = new TempFolder();
  execFileSync('cpio', ['--quiet', '-idm'], { cwd: folder.path, input: archive });
  const names = run('find', folder.path, '-type', 'f', '-printf', '%P\n').trim().split('\n');
  return new Map(names.sort().map((name) => [name, fs.readFileSync(folder.file(name), 'latin1')]));
}

describe('a bare volume with our boot loader around it', () => {
  it('gets its missing modules, indexes for all of them, and its own kernel line by UUID', () => {
    using machine = new SmallMachine('volume');
    const plan = machine.plan('qemu-virtio', { wrapped: true, console: 'ttyS0' });
    expect(plan.guest).toEqual({
      os: 'linux',
      name: 'Small GNU/Linux 7',
      version: '7',
      kernel: version,
      firmware: [],
      diskNames: ['/dev/sda1', '/dev/sda2', 'UUID=1234'],
      storageDrivers: ['ata_piix', 'ata_generic'],
    });
    expect(plan.boot).toEqual({
      kernel: `/boot/vmlinuz-${version}`,
      initrds: [`/boot/initrd.img-${version}`],
      arguments: 'root=UUID=01234567-89ab-cdef-0123-456789abcdef ro quiet console=tty0 console=ttyS0,115200',
    });
    expect(plan.warnings).toEqual([]);
    const files = unpacked(plan.initramfs ?? new Uint8Array(0));
    const base = `usr/lib/modules/${version}`;
    expect([...files.keys()].filter((name) => name.endsWith('.ko'))).toEqual([
      `${base}/kernel/drivers/block/virtio_blk.ko`,
      `${base}/kernel/drivers/scsi/virtio_scsi.ko`,
      `${base}/kernel/drivers/virtio/virtio.ko`,
      `${base}/kernel/drivers/virtio/virtio_pci.ko`,
      `${base}/kernel/drivers/virtio/virtio_ring.ko`,
    ]);
    expect(files.get(`${base}/kernel/drivers/block/virtio_blk.ko`)).toBe('module kernel/drivers/block/virtio_blk.ko');
    expect(files.get('conf/modules')).toMatch(/^unix\nvirtio\nvirtio_ring\nvirtio_pci\nvirtio_blk\n/);
    expect(files.get(`${base}/modules.dep`)).toContain(
      'kernel/drivers/ata/ata_piix.ko: kernel/drivers/ata/libata.ko\n',
    );
    machine.apply(plan);
    expect(machine.file('/etc/fstab')).toBe(
      '# comment /dev/sda9\n/dev/vda1 / ext4 defaults 0 1\n/dev/vda2\tnone swap sw 0 0\nUUID=1234 /srv ext4 ro 0 0\n',
    );
    expect(machine.file('/etc/crypttab')).toBe('data /dev/vda3 none luks\n');
    expect(machine.file('/boot/grub/grub.cfg')).toBe(menu);
  });

  it('gets no initramfs where its own has the drivers, and nothing for hardware that it has already', () => {
    using machine = new SmallMachine('volume', { inInitramfs: ['ata_piix', 'libata', 'ahci', 'sd_mod'] });
    const plan = machine.plan('qemu', { wrapped: true });
    expect(plan.initramfs).toBeUndefined();
    expect(plan.patches).toEqual([]);
    expect(plan.changes.map(({ what }) => what)).toEqual(['kernel line']);
  });

  it('gets all modules and its own indexes where its initramfs cannot be looked into', () => {
    using machine = new SmallMachine('volume', { initramfs: Buffer.from('fd377a585a00000000', 'hex') });
    const plan = machine.plan('qemu-virtio', { wrapped: true });
    expect(plan.warnings).toEqual([expect.stringContaining('compressed by xz')]);
    const files = unpacked(plan.initramfs ?? new Uint8Array(0));
    expect([...files.keys()]).toContain(`lib/modules/${version}/kernel/drivers/scsi/sd_mod.ko`);
    expect(files.get(`lib/modules/${version}/modules.alias`)).toContain('ata_piix');
  });
});

describe('a whole disk with its own boot loader', () => {
  it('gets its modules into free sectors, and its menu names them without growing', () => {
    using machine = new SmallMachine('disk');
    const plan = machine.plan('qemu-virtio', { console: 'ttyS0' });
    expect(plan.warnings).toEqual([]);
    expect(plan.initramfs).toBeUndefined();
    machine.apply(plan);
    const changed = machine.file('/boot/grub/grub.cfg');
    expect(changed).toHaveLength(menu.length);
    expect(changed).toContain(`vmlinuz-${version} root=/dev/vda1 ro quiet console=tty0 console=ttyS0,115200\n`);
    const [, start, count] = /initrd\t\/boot\/initrd\.img-\S+ \(hd0\)(\d+)\+(\d+)/.exec(changed) ?? [];
    const packed = fs.readFileSync(machine.image).subarray(Number(start) * 512, (Number(start) + Number(count)) * 512);
    expect([...unpacked(gunzipSync(packed)).keys()]).toContain(
      `usr/lib/modules/${version}/kernel/drivers/block/virtio_blk.ko`,
    );
    expect(Number(start)).toBeGreaterThan((512 + 40 * KiB) / 512);
    expect((Number(start) + Number(count)) * 512).toBeLessThanOrEqual(partitionStart);
    expect(changed).toContain('root=/dev/vda1 ro single');
  });

  it('finds its root by UUID where the target has controllers of other names, with no second console for one that it has', () => {
    const own = menu
      .replaceAll('ro quiet', 'ro quiet console=ttyS0')
      .replace('root=/dev/sda1 ro single', 'root=/dev/sda7 ro single');
    using machine = new SmallMachine('disk', { menu: own });
    const uuid = '01234567-89ab-cdef-0123-456789abcdef';
    expect(machine.plan('qemu', { console: 'ttyS0' }).changes.map(({ what }) => what)).not.toContain('kernel line');
    for (const [target, other] of [
      ['vmware', '/dev/sda7'],
      ['qemu-virtio', '/dev/vda7'],
    ] as const) {
      using again = new SmallMachine('disk', { menu: own });
      again.apply(again.plan(target, { console: 'ttyS0' }));
      const changed = again.file('/boot/grub/grub.cfg');
      expect(changed).toHaveLength(own.length);
      expect(changed).toContain(`vmlinuz-${version} root=UUID=${uuid} ro quiet console=ttyS0\n`);
      expect(changed).toContain(`root=${other} ro single`);
    }
  });

  it('is told so where the menu has no room, and is not half changed', () => {
    const cramped = menu
      .replaceAll(/\techo.*\n/g, '')
      .replace("menuentry 'Test GNU/Linux (recovery)'", "menuentry 'other'");
    using machine = new SmallMachine('disk', { menu: cramped });
    const plan = machine.plan('qemu-virtio');
    expect(plan.warnings).toEqual([expect.stringMatching(/^grub\.cfg stays as it is: its entry has no room for/)]);
    machine.apply(plan);
    expect(machine.file('/boot/grub/grub.cfg')).not.toContain('(hd0)');
    expect(plan.patches.every(({ offsetBytes }) => offsetBytes >= partitionStart)).toBe(true);
  });
});

it('a name that does not fit its line of fstab is said; white space behind it gives way', () => {
  using machine = new SmallMachine('volume', {
    fstab: '/dev/vda1 / ext4 defaults 0 1\n/dev/nvme0n1p2 /srv ext4 ro 0 0\n/dev/xvda3\t/opt ext4 ro 0 0\n',
  });
  const plan = machine.plan('qemu', { wrapped: true });
  machine.apply(plan);
  expect(machine.file('/etc/fstab')).toBe(
    '/dev/sda1 / ext4 defaults 0 1\n/dev/sda2      /srv ext4 ro 0 0\n/dev/sda3 \t/opt ext4 ro 0 0\n',
  );
});
