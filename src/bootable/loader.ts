/**
 * The boot loader for a disk that is made around volumes: GRUB, built once from the host's packages, or our own boot code, which starts the
 * volume's own boot sector, or nothing where the volumes bring what UEFI starts. We ship no GRUB.
 */
import { execFileSync } from 'node:child_process';
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { inOneLine, systemErrorCode, UnavailableError, UsageError } from '../base/errors.ts';
import { temporaryFolder } from '../base/given-names.ts';
import { bootCodeBytes, sectorBytes } from '../volume/table-layout.ts';
import { chainLoaderCode } from './boot-code.ts';
import { configBytes, configLba, type Firmware, type PartitionStyle } from './geometry.ts';
import type { VolumeFacts } from './volume.ts';

export type Loader =
  /** The boot sector of the active partition is started. */
  | { readonly kind: 'chain'; readonly bootCode: Uint8Array }
  | { readonly kind: 'grub-bios'; readonly bootCode: Uint8Array; readonly core: Uint8Array; readonly coreLba: number }
  | { readonly kind: 'grub-efi'; readonly program: Uint8Array }
  /** A volume is the EFI system partition. */
  | { readonly kind: 'none' };

const grubFolder = '/usr/lib/grub';
const packages = { 'i386-pc': 'grub-pc-bin', 'x86_64-efi': 'grub-efi-amd64-bin' } as const;
type Platform = keyof typeof packages;

/** Embedded, so that nothing is loaded from a guest's folder of modules, which may be of another release. */
const modules = [
  'part_msdos part_gpt ext2 xfs btrfs fat ntfs iso9660 lvm diskfilter mdraid09 mdraid1x cryptodisk luks luks2',
  'gcry_rijndael gcry_sha256 gcry_sha512 pbkdf2 normal configfile echo test true regexp probe read sleep loadenv',
  'search search_fs_uuid search_fs_file search_label linux chain boot reboot halt serial terminal minicmd ls cat',
  'gzio xzio lzopio zstd all_video video_bochs video_cirrus gfxterm gfxmenu font png gettext keystatus',
]
  .join(' ')
  .split(' ');
const platformModules: Readonly<Record<Platform, readonly string[]>> = {
  'i386-pc': ['biosdisk', 'linux16', 'ntldr', 'vbe', 'vga'],
  'x86_64-efi': ['efi_gop', 'efi_uga', 'fwsetup'],
};

/** Commands of GRUB's first parser, which knows no comments. */
const firstCommands = [
  'serial --unit=0 --speed=115200',
  'terminal_input console serial',
  'terminal_output console serial',
];

/** GRUB's boot.img: where it finds the core, and a jump that distrusts the drive number which the BIOS gives. */
const coreLbaOffset = 0x5c;
const driveCheckOffset = 0x66;
const noOperations = Buffer.of(0x90, 0x90);
/** In the first sector of the core: where its second one lies. */
const blockListOffset = sectorBytes - 12;
/** The core's place in an MBR's gap, and in the BIOS boot partition of a GPT. */
const coreLbas: Readonly<Record<PartitionStyle, number>> = { mbr: 1, gpt: 2048 };

/**
 * The loader for these volumes, of which the first is the system's.
 * @throws UsageError when such a disk cannot boot; UnavailableError naming a package that is missing
 */
export function makeLoader(firmware: Firmware, style: PartitionStyle, volumes: readonly VolumeFacts[]): Loader {
  const system = volumes[0]?.kind;
  const isWindows = system === 'ntfs' || system === 'fat';
  if (firmware === 'uefi') {
    if (volumes.some(({ kind }) => kind === 'efi-system')) return { kind: 'none' };
    if (!isWindows) return { kind: 'grub-efi', program: makeEfiProgram() };
    throw new UsageError(
      'a Windows volume has no boot files for UEFI: add the EFI system partition with --volume, or use --boot bios',
    );
  }
  if (!isWindows && system !== 'efi-system') return makeBiosLoader(coreLbas[style]);
  if (style === 'mbr') return { kind: 'chain', bootCode: chainLoaderCode };
  throw new UsageError('a Windows volume starts from an MBR with BIOS; use --partition-style mbr, or --boot uefi');
}

function makeBiosLoader(coreLba: number): Loader {
  const image = readGrubFile('i386-pc', 'boot.img');
  const bootCode = new Uint8Array(image.subarray(0, bootCodeBytes));
  const code = Buffer.from(bootCode.buffer);
  code.writeBigUInt64LE(BigInt(coreLba), coreLbaOffset);
  noOperations.copy(code, driveCheckOffset);
  const core = buildImage('i386-pc', '/boot/grub', [
    ...firstCommands,
    `source \${cmdpath}${configLba}+${configBytes / sectorBytes}`,
  ]);
  core.writeBigUInt64LE(BigInt(coreLba + 1), blockListOffset);
  return { kind: 'grub-bios', bootCode, core, coreLba };
}

function makeEfiProgram(): Uint8Array {
  return buildImage('x86_64-efi', '/EFI/BOOT', [...firstCommands, 'configfile $cmdpath/grub.cfg']);
}

function buildImage(platform: Platform, prefix: string, commands: readonly string[]): Buffer {
  const folder = path.join(grubFolder, platform);
  const present = [...modules, ...platformModules[platform]].filter((name) =>
    fs.existsSync(path.join(folder, `${name}.mod`)),
  );
  readGrubFile(platform, 'normal.mod');
  const work = fs.mkdtempSync(path.join(temporaryFolder(), 'veneer-grub-'));
  try {
    const config = path.join(work, 'first.cfg');
    const out = path.join(work, 'image');
    fs.writeFileSync(config, `${commands.join('\n')}\n`);
    const options = ['-O', platform, '-d', folder, '-p', prefix, '-c', config, '-o', out];
    runMakeImage([...options, ...present]);
    return fs.readFileSync(out);
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

function runMakeImage(args: readonly string[]): void {
  try {
    execFileSync('grub-mkimage', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') throw missing('grub-mkimage', 'grub-common', error);
    const said = error instanceof Error && 'stderr' in error ? inOneLine(String(error.stderr)) : String(error);
    throw new UnavailableError(`grub-mkimage failed: ${said}`, { cause: error });
  }
}

function readGrubFile(platform: Platform, name: string): Buffer {
  const file = path.join(grubFolder, platform, name);
  try {
    return fs.readFileSync(file);
  } catch (error) {
    throw missing(file, packages[platform], error);
  }
}

function missing(what: string, packageName: string, cause: unknown): UnavailableError {
  return new UnavailableError(
    `${what} is not there: GRUB's boot code is taken from this host; install the package ${packageName}`,
    { cause },
  );
}
