/** GRUB's configuration is in GRUB's language (its own checker says so), whatever is wished, and says what was wished. */
import { afterAll, expect, it } from 'vitest';
import { configBytes, type BootableGeometry, type PartitionType } from '../../src/bootable/geometry.ts';
import { grubConfig, type BootWishes } from '../../src/bootable/grub-config.ts';
import { MiB } from '../../src/base/units.ts';
import { runOk } from '../cli/veneer.ts';
import { TempFolder } from '../temp-folder.ts';

const folder = new TempFolder();
afterAll(() => folder.remove());

function layoutOf(
  style: 'mbr' | 'gpt',
  ...volumes: readonly PartitionType[]
): Pick<BootableGeometry, 'style' | 'partitions' | 'room'> {
  const guid = '00000000-0000-0000-0000-000000000000';
  const partitions = volumes.map((type, volume) => ({
    type,
    startBytes: (volume + 1) * MiB,
    sizeBytes: MiB,
    guid,
    active: false,
    volume,
  }));
  return { style, partitions, room: { startBytes: 100 * MiB, sizeBytes: 32 * MiB } };
}

async function checked(layout: Parameters<typeof grubConfig>[0], wishes?: BootWishes): Promise<string> {
  const text = grubConfig(layout, wishes);
  await runOk('grub-script-check', ['-v', folder.write('grub.cfg', text)]);
  return text;
}

it('the guest’s own menu comes first, then its newest kernel', async () => {
  const text = await checked(layoutOf('mbr', 'linux'), { kernelArguments: 'quiet  veneer.x=1' });
  expect(text.indexOf('configfile')).toBeGreaterThan(0);
  expect(text.indexOf('configfile')).toBeLessThan(text.indexOf('linux $veneer_kernel'));
  expect(text).toContain("'console=ttyS0,115200' 'quiet' 'veneer.x=1'\n");
});

it('all partitions are looked at, the system’s first, and logical volumes where there are any', async () => {
  const plain = await checked(layoutOf('gpt', 'linux', 'linux'));
  expect(plain).toContain('for veneer_device in $veneer_disk,gpt1 $veneer_disk,gpt2; do');
  expect(plain).not.toContain('search');
  expect(await checked(layoutOf('gpt', 'lvm', 'linux'))).toContain('search --no-floppy');
});

it('an initramfs in the room is one more initrd, and passes the guest’s own menu over', async () => {
  const text = await checked(layoutOf('mbr', 'linux'), { initramfsBytes: 10 * MiB + 1 });
  expect(text).toContain(`initrd $veneer_initrd ($veneer_disk)${(100 * MiB) / 512}+${(10 * MiB) / 512 + 1}\n`);
  expect(text).not.toContain('configfile');
});

it('exactly one kernel is booted where it is given, each word as it is', async () => {
  const text = await checked(layoutOf('gpt', 'linux', 'linux'), {
    linux: {
      kernel: "/boot/it's $here",
      initrds: ['/boot/a', '/boot/b c'],
      arguments: 'root=/dev/sda1 x="$y" \\z',
      volume: 1,
    },
    initramfsBytes: 512,
  });
  expect(text).toContain('set veneer_device="$veneer_disk,gpt2"\n');
  expect(text).toContain(String.raw`linux ($veneer_device)'/boot/it'\''s $here' 'root=/dev/sda1' 'x="$y"' '\z'`);
  expect(text).toContain(`initrd ($veneer_device)'/boot/a' ($veneer_device)'/boot/b c' ($veneer_disk)204800+1\n`);
});

it.each([
  ['a line break', { kernelArguments: 'a\nb' }, /cannot hold/],
  ['a kernel line that is too long', { kernelArguments: 'x '.repeat(configBytes / 2) }, /longer than 16384 bytes/],
  ['an initramfs larger than the room', { initramfsBytes: 32 * MiB + 1 }, /no room for an initramfs/],
  ['a volume that is not there', { linux: { kernel: '/k', initrds: [], arguments: '', volume: 3 } }, /no volume 3/],
] as const)('refuses %s', (_what, wishes, says) => {
  expect(() => grubConfig(layoutOf('mbr', 'linux'), wishes)).toThrow(says);
});
