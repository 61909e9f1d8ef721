/**
 * GRUB's configuration for a disk that we made: text in GRUB's language, the same for BIOS and UEFI, which finds the guest's own menu on the
 * volumes, or, where the guest has none, boots its newest kernel.
 */
import { CapacityError, UsageError } from '../base/errors.ts';
import { sectorBytes } from '../volume/table-layout.ts';
import { configBytes, type BootableGeometry } from './geometry.ts';

/** Exactly what to boot, for a caller that has read the volume. */
export interface LinuxBoot {
  /** Paths on the volume. */
  readonly kernel: string;
  readonly initrds: readonly string[];
  /** The kernel line behind the kernel's name. */
  readonly arguments: string;
  /** Which volume; the first when absent. */
  readonly volume?: number;
  /** GRUB's name of the device instead, of a logical volume: `lvm/group-name`. */
  readonly device?: string;
}

export interface BootWishes {
  /** Added to the kernel line; a guest that boots by its own menu does not get them. */
  readonly kernelArguments?: string;
  readonly linux?: LinuxBoot;
  /** So many bytes at the start of the room are one more initrd. */
  readonly initramfsBytes?: number;
}

type Layout = Pick<BootableGeometry, 'style' | 'partitions' | 'room'>;

const menuPaths = ['/boot/grub', '/grub', '/boot/grub2', '/grub2', '/@/boot/grub', '/@rootfs/boot/grub'];
/** Where kernels lie, and the subvolume of a btrfs root that they lie in. */
const kernelFolders = [
  ['/boot', ''],
  ['', ''],
  ['/@/boot', '@'],
  ['/@rootfs/boot', '@rootfs'],
] as const;
const defaultArguments = 'console=tty0 console=ttyS0,115200';

/** @throws UsageError for a path or argument that cannot be written there; CapacityError when the text is too long */
export function grubConfig(layout: Layout, wishes: BootWishes = {}): string {
  const extraInitrd = initrdInRoom(layout, wishes.initramfsBytes);
  const lines = [
    'set timeout=0',
    'set veneer_disk=hd0',
    `regexp --set=1:veneer_disk '^\\(([^,)]+)' "$cmdpath"`,
    ...(wishes.linux === undefined
      ? [...(extraInitrd === '' ? ownMenu(layout) : []), ...newestKernel(layout, wishes, extraInitrd)]
      : exactKernel(layout, wishes.linux, wishes.kernelArguments, extraInitrd)),
  ];
  const text = `${lines.join('\n')}\n`;
  if (Buffer.byteLength(text) > configBytes) {
    throw new CapacityError(`GRUB's configuration would be longer than ${configBytes} bytes; shorten the kernel line`);
  }
  return text;
}

function initrdInRoom({ room }: Layout, lengthBytes: number | undefined): string {
  if (lengthBytes === undefined) return '';
  if (room === undefined || lengthBytes > room.sizeBytes) {
    throw new CapacityError(`the disk has no room for an initramfs of ${lengthBytes} bytes`);
  }
  return ` ($veneer_disk)${room.startBytes / sectorBytes}+${Math.ceil(lengthBytes / sectorBytes)}`;
}

/** GRUB's names of the partitions that hold volumes, the system's first. */
function deviceNames({ style, partitions }: Layout): string[] {
  const prefix = style === 'gpt' ? 'gpt' : 'msdos';
  return partitions
    .map(({ volume }, index) => ({ volume, name: `$veneer_disk,${prefix}${index + 1}` }))
    .filter(({ volume }) => volume !== undefined)
    .sort((a, b) => (a.volume ?? 0) - (b.volume ?? 0))
    .map(({ name }) => name);
}

const hasLvm = ({ partitions }: Layout): boolean => partitions.some(({ type }) => type === 'lvm');

function ownMenu(layout: Layout): string[] {
  const start = [
    'set root="$veneer_device"',
    'set prefix="($root)$veneer_folder"',
    'export prefix',
    'configfile "$prefix/grub.cfg"',
  ];
  return [
    `for veneer_device in ${deviceNames(layout).join(' ')}; do`,
    `  for veneer_folder in ${menuPaths.join(' ')}; do`,
    '    if [ -s "($veneer_device)$veneer_folder/grub.cfg" ]; then',
    ...start.map((line) => `      ${line}`),
    '    fi',
    '  done',
    'done',
    ...(hasLvm(layout)
      ? [
          `for veneer_folder in ${menuPaths.join(' ')}; do`,
          '  if search --no-floppy --set=veneer_device --file "$veneer_folder/grub.cfg"; then',
          ...start.map((line) => `    ${line}`),
          '  fi',
          'done',
        ]
      : []),
  ];
}

function newestKernel(layout: Layout, wishes: BootWishes, extraInitrd: string): string[] {
  const devices = deviceNames(layout).join(' ');
  return [
    `set veneer_devices="${devices}"`,
    // A logical volume has no name that we could know: it is found by what a root file system has.
    ...(hasLvm(layout)
      ? [
          'for veneer_file in /etc/fstab /sbin/init; do',
          '  if search --no-floppy --set=veneer_device --file $veneer_file; then',
          '    set veneer_devices="$veneer_devices $veneer_device"',
          '  fi',
          'done',
        ]
      : []),
    'for veneer_device in $veneer_devices; do',
    ...kernelFolders.flatMap(([folder, subvolume]) => [
      `  for veneer_file in ($veneer_device)${folder}/vmlinuz-*; do`,
      '    if [ -f "$veneer_file" ]; then',
      `      if regexp 'vmlinuz-0-rescue' "$veneer_file"; then true`,
      '      elif [ -z "$veneer_kernel" -o "$veneer_file" -nt "$veneer_kernel" ]; then',
      '        set veneer_kernel="$veneer_file"',
      `        set veneer_subvolume="${subvolume}"`,
      '      fi',
      '    fi',
      '  done',
    ]),
    '  for veneer_file in /etc/fstab /sbin/init /@/etc/fstab /@rootfs/etc/fstab; do',
    '    if [ -z "$veneer_root" -a -e "($veneer_device)$veneer_file" ]; then',
    '      set veneer_root="$veneer_device"',
    '    fi',
    '  done',
    'done',
    'if [ -n "$veneer_kernel" -a -n "$veneer_root" ]; then',
    `  regexp --set=1:veneer_folder --set=2:veneer_version '^(.*)/vmlinuz-(.*)$' "$veneer_kernel"`,
    '  for veneer_file in initrd.img-$veneer_version initramfs-$veneer_version.img initrd-$veneer_version initramfs-$veneer_version; do',
    '    if [ -f "$veneer_folder/$veneer_file" ]; then',
    '      set veneer_initrd="$veneer_folder/$veneer_file"',
    '    fi',
    '  done',
    '  probe --set=veneer_uuid --fs-uuid ($veneer_root)',
    '  if [ -n "$veneer_subvolume" ]; then',
    '    set veneer_flags="rootflags=subvol=$veneer_subvolume"',
    '  fi',
    '  echo "Veneer: booting $veneer_kernel, root $veneer_uuid"',
    `  linux $veneer_kernel root=UUID=$veneer_uuid ro $veneer_flags ${words(`${defaultArguments} ${wishes.kernelArguments ?? ''}`)}`,
    '  if [ -n "$veneer_initrd" ]; then',
    `    initrd $veneer_initrd${extraInitrd}`,
    ...(extraInitrd === '' ? [] : ['  else', `    initrd${extraInitrd}`]),
    '  fi',
    '  boot',
    'fi',
    'echo "Veneer: neither a GRUB menu nor a Linux kernel was found on the volumes of this disk."',
  ];
}

function exactKernel(layout: Layout, linux: LinuxBoot, kernelArguments = '', extraInitrd: string): string[] {
  const device = linux.device ?? deviceNames(layout)[linux.volume ?? 0];
  if (device === undefined) throw new UsageError(`the disk has no volume ${linux.volume ?? 0}`);
  const onVolume = (file: string): string => `($veneer_device)${quoted(file)}`;
  const initrds = linux.initrds.map((file) => ` ${onVolume(file)}`).join('') + extraInitrd;
  return [
    `set veneer_device=${linux.device === undefined ? `"${device}"` : quoted(device)}`,
    'set root="$veneer_device"',
    `linux ${onVolume(linux.kernel)} ${words(`${linux.arguments} ${kernelArguments}`)}`,
    ...(initrds === '' ? [] : [`initrd${initrds}`]),
    'boot',
  ];
}

/** Each word for itself: GRUB hands a word with spaces in it to the kernel in quotes. */
function words(text: string): string {
  return text
    .split(/ +/)
    .filter((word) => word !== '')
    .map(quoted)
    .join(' ');
}

/** As one word that GRUB takes as it is. */
function quoted(text: string): string {
  // eslint-disable-next-line no-control-regex -- it is these that are looked for
  if (/[\x00-\x1f\x7f]/.test(text)) {
    throw new UsageError(`${JSON.stringify(text)} has characters that GRUB's configuration cannot hold`);
  }
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
