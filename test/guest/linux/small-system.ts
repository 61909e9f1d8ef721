/** The files of a Linux that boots nowhere and has all that a plan looks at: no kernel runs in these tests, so theirs are a few bytes. */
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { fileMode, folderMode, writeCpio } from '../../../src/guest/linux/cpio.ts';

export const version = '6.1.0-1-test';

export interface SmallSystem {
  readonly fstab?: string;
  readonly menu?: string;
  /** Modules in its initramfs. */
  readonly inInitramfs?: readonly string[];
  /** Instead of an initramfs that can be read. */
  readonly initramfs?: Uint8Array;
}

const files: Readonly<Record<string, readonly string[]>> = {
  'kernel/drivers/virtio/virtio.ko': [],
  'kernel/drivers/virtio/virtio_ring.ko': ['kernel/drivers/virtio/virtio.ko'],
  'kernel/drivers/virtio/virtio_pci.ko': ['kernel/drivers/virtio/virtio_ring.ko', 'kernel/drivers/virtio/virtio.ko'],
  'kernel/drivers/block/virtio_blk.ko': ['kernel/drivers/virtio/virtio_ring.ko', 'kernel/drivers/virtio/virtio.ko'],
  'kernel/drivers/scsi/virtio_scsi.ko': ['kernel/drivers/virtio/virtio_ring.ko', 'kernel/drivers/virtio/virtio.ko'],
  'kernel/drivers/ata/libata.ko': [],
  'kernel/drivers/ata/ata_piix.ko': ['kernel/drivers/ata/libata.ko'],
  'kernel/drivers/ata/ahci.ko': ['kernel/drivers/ata/libata.ko'],
  'kernel/drivers/scsi/sd_mod.ko': [],
};
const aliases = [
  'alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci',
  'alias virtio:d00000002v* virtio_blk',
  'alias virtio:d00000008v* virtio_scsi',
  'alias pci:v00008086d00007010sv*sd*bc*sc*i* ata_piix',
];

export const menu = [
  'set default="0"',
  "menuentry 'Test GNU/Linux' {",
  "\techo\t'Loading Linux ...'",
  `\tlinux\t/boot/vmlinuz-${version} root=/dev/sda1 ro quiet`,
  "\techo\t'Loading initial ramdisk ...'",
  `\tinitrd\t/boot/initrd.img-${version}`,
  '}',
  "menuentry 'Test GNU/Linux (recovery)' {",
  `\tlinux\t/boot/vmlinuz-${version} root=/dev/sda1 ro single`,
  `\tinitrd\t/boot/initrd.img-${version}`,
  '}',
  '',
].join('\n');

/** Writes the files below `folder`. */
export function writeSystem(folder: string, system: SmallSystem = {}): void {
  const write = (name: string, contents: Uint8Array | string): void => {
    fs.mkdirSync(path.join(folder, path.dirname(name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), contents);
  };
  write('etc/os-release', 'PRETTY_NAME="Small GNU/Linux 7"\nVERSION_ID="7"\n');
  write(
    'etc/fstab',
    system.fstab ??
      '# comment /dev/sda9\n/dev/sda1 / ext4 defaults 0 1\n/dev/sda2\tnone swap sw 0 0\nUUID=1234 /srv ext4 ro 0 0\n',
  );
  write('etc/crypttab', 'data /dev/sda3 none luks\n');
  write('boot/grub/grub.cfg', system.menu ?? menu);
  write(`boot/vmlinuz-${version}`, 'a kernel');
  write('boot/vmlinuz-5.10.0-9-old', 'an older kernel');
  write(
    `boot/initrd.img-${version}`,
    system.initramfs ?? initramfsWith(system.inInitramfs ?? ['ata_piix', 'libata', 'sd_mod']),
  );
  for (const file of Object.keys(files)) write(`lib/modules/${version}/${file}`, `module ${file}`);
  write(
    `lib/modules/${version}/modules.dep`,
    Object.entries(files)
      .map(([file, needs]) => `${file}: ${needs.join(' ')}\n`)
      .join(''),
  );
  write(`lib/modules/${version}/modules.alias`, `${aliases.join('\n')}\n`);
  write(`lib/modules/${version}/modules.builtin`, 'kernel/drivers/ata/ata_generic.ko\n');
}

export function initramfsWith(modules: readonly string[]): Uint8Array {
  const early = writeCpio([
    { name: 'kernel/x86/microcode/AuthenticAMD.bin', mode: fileMode, data: Buffer.from('microcode') },
  ]);
  const chosen = Object.keys(files).filter((file) => modules.includes(path.basename(file, '.ko')));
  const main = writeCpio([
    { name: 'conf', mode: folderMode, data: new Uint8Array(0) },
    { name: 'conf/modules', mode: fileMode, data: Buffer.from('unix\n') },
    ...chosen.map((file) => ({
      name: `usr/lib/modules/${version}/${file}`,
      mode: fileMode,
      data: Buffer.from(`module ${file}`),
    })),
  ]);
  return Buffer.concat([early, gzipSync(main)]);
}
