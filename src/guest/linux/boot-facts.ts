/** How a Linux guest boots now: its GRUB menu, the kernel that it takes, that kernel's modules and its initramfs. */
import { UnsupportedError } from '../../base/errors.ts';
import type { FilesByPath } from '../../filesystem/by-path.ts';
import { isRefusal } from '../../volume/open-disk.ts';
import { byVersion, defaultEntry, parseMenu, versionOf, type MenuEntry } from './grub-menu.ts';
import { maxInitramfsBytes, readInitramfs, type InitramfsContents } from './initramfs.ts';
import { readModules, type KernelModules } from './modules.ts';
import { namesIn, readText, type Found, type LinuxSystem } from './system.ts';

export interface Menu {
  readonly place: Found;
  readonly text: string;
  readonly entries: readonly MenuEntry[];
  readonly standard: MenuEntry | undefined;
}

export interface BootFacts {
  readonly menu: Menu | undefined;
  readonly version: string;
  readonly kernel: Found;
  readonly initramfs: Found | undefined;
  readonly modules: KernelModules | undefined;
  /** Undefined where it could not be looked into. */
  readonly contents: InitramfsContents | undefined;
  readonly warnings: readonly string[];
}

const menuPaths = ['/boot/grub/grub.cfg', '/boot/grub2/grub.cfg'];
const kernelNames = /^vmlinu[xz]-(.+)$/;

/** @throws UnsupportedError where there is no kernel */
export function readBootFacts(system: LinuxSystem): BootFacts {
  const warnings: string[] = [];
  const menu = readMenu(system);
  if (menu !== undefined && menu.standard === undefined)
    warnings.push(
      `${menuPaths.join(' or ')} names no kernel itself (boot loader entries?); the newest kernel is taken`,
    );
  const version = chosenVersion(system, menu);
  const initramfs = [`/boot/initrd.img-${version}`, `/boot/initramfs-${version}.img`, `/boot/initrd-${version}`]
    .map((path) => system.find(path))
    .find(({ fileSystem, path }) => isFile(fileSystem, path));
  let contents: InitramfsContents | undefined;
  try {
    if (initramfs !== undefined)
      contents = readInitramfs(initramfs.fileSystem.readFile(initramfs.path, maxInitramfsBytes));
  } catch (error) {
    if (!isRefusal(error)) throw error;
    warnings.push(error.message);
  }
  const kernel = system.find(`/boot/vmlinuz-${version}`);
  return { menu, version, kernel, initramfs, modules: readModules(system, version), contents, warnings };
}

function readMenu(system: LinuxSystem): Menu | undefined {
  for (const path of menuPaths) {
    const place = system.find(path);
    const text = readText(place.fileSystem, place.path);
    if (text === undefined) continue;
    const entries = parseMenu(text);
    return { place, text, entries, standard: defaultEntry(text, entries) };
  }
  return undefined;
}

function chosenVersion(system: LinuxSystem, menu: Menu | undefined): string {
  const named = menu?.standard === undefined ? undefined : versionOf(menu.standard.kernel);
  const boot = system.find('/boot');
  const versions = namesIn(boot.fileSystem, boot.path)
    .flatMap((name) => kernelNames.exec(name)?.[1] ?? [])
    .filter((version) => !version.includes('rescue'))
    .sort(byVersion);
  if (named !== undefined && versions.includes(named)) return named;
  const [newest] = versions;
  if (newest === undefined)
    throw new UnsupportedError(`${system.name}: there is no kernel in /boot; it is not reconfigured`);
  return newest;
}

function isFile(fileSystem: FilesByPath, path: string): boolean {
  try {
    return fileSystem.stat(path)?.type === 'file';
  } catch (error) {
    if (isRefusal(error)) return false;
    throw error;
  }
}
