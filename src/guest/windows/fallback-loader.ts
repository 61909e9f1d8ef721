/**
 * The loader that UEFI firmware starts when it knows of none: \EFI\BOOT\BOOTX64.EFI. Windows' own entry stands in the memory of the old
 * machine's firmware, which stays behind; without the fallback a new machine finds nothing.
 */
import { UnsupportedError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { FilesByPath } from '../../filesystem/by-path.ts';
import type { Change, Patch } from '../../filesystem/edit/patch.ts';
import { FatVolume } from '../../filesystem/fat/volume.ts';
import { machineOf, machines } from './programs.ts';

const bootManagerPath = '/EFI/Microsoft/Boot/bootmgfw.efi';
const maxLoaderBytes = 16 * MiB;
/** By the machine that a PE program is for: its field in the file, and the fallback's name. */
const fallbackNames: Readonly<Record<number, string>> = {
  [machines.amd64]: 'BOOTX64.EFI',
  [machines.x86]: 'BOOTIA32.EFI',
  [machines.arm64]: 'BOOTAA64.EFI',
};

export interface Fallback {
  readonly patches: readonly Patch[];
  readonly changes: readonly Change[];
  readonly warnings: readonly string[];
}

/** Patches of the EFI system partition that add the fallback; none where it is there. */
export function addFallbackLoader(fileSystem: FilesByPath): Fallback {
  const nothing = { patches: [], changes: [], warnings: [] };
  const { volume } = fileSystem;
  if (!(volume instanceof FatVolume) || fileSystem.stat(bootManagerPath)?.type !== 'file') return nothing;
  const loader = fileSystem.readFile(bootManagerPath, maxLoaderBytes);
  const name = fallbackNames[machineOf(loader) ?? 0];
  if (name === undefined) return { ...nothing, warnings: [`${bootManagerPath}: is no program for a known machine`] };
  const path = `/EFI/BOOT/${name}`;
  if (fileSystem.stat(path) !== undefined) return nothing;
  const change = {
    what: 'add the loader that firmware finds by itself',
    where: path,
    old: 'absent',
    new: `a copy of ${bootManagerPath}`,
    why: "the entry of Windows is in the old machine's firmware",
  };
  try {
    return { patches: volume.addFile(path, loader), changes: [change], warnings: [] };
  } catch (error) {
    if (!(error instanceof UnsupportedError)) throw error;
    const warning = `${path}: cannot be added (${error.message}); choose ${bootManagerPath} in the firmware's menu by hand`;
    return { ...nothing, warnings: [warning] };
  }
}
