/**
 * Reconfigures the guest of a plugin file: inspects its disk, plans, and keeps the plan as a patch set beside the plugin file, which from then
 * on reads with it. The images stay what they are, and undoing is forgetting the patch set.
 *
 * Crash order: 1. the patch set is written; 2. the plugin file names it. Undoing: 1. the plugin file no longer names it; 2. it is removed.
 */
import * as fs from '../base/fs.ts';
import { assert, UnsupportedError, UsageError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { writeFileDurably } from '../base/durable.ts';
import { closing } from '../base/ownership.ts';
import { grubConfig } from '../bootable/grub-config.ts';
import { openGuestDisk, type GuestDisk } from '../volume/open-disk.ts';
import { planGuest } from '../guest/plan-guest.ts';
import type { PatchSet } from '../guest/patch-set.ts';
import { type GuestPlan, type Target } from '../guest/plan.ts';
import { checkPatches, type Patch } from '../filesystem/edit/patch.ts';
import type { Bootable } from './bootable-schema.ts';
import { describePatchSet, isPatchSetOf, patchSetFile, patchSetPath } from './patch-set-file.ts';
import type { OpenPlugin } from './open-plugin.ts';
import type { PluginEdit } from './plugin-edit.ts';
import { sourceIdsOf, type PluginFile } from './plugin-file.ts';

export interface ReconfigureOptions {
  /** Of a Linux: a serial port, `ttyS0`. */
  readonly console?: string | undefined;
  /** Of a Windows: a folder of this host with virtio's drivers. */
  readonly virtioWin?: string | undefined;
}

/** Inspects the disk as its images have it, and plans; changes nothing. @throws UnsupportedError where no system is found that can be reconfigured */
export function planReconfiguration(plugin: OpenPlugin, target: Target, options: ReconfigureOptions = {}): GuestPlan {
  using disk = closing(plugin.withoutTarget().openDisk());
  const guest = openGuestDisk(disk.value);
  const plan = planGuest(guest, target, { wrapped: plugin.plugin.bootable !== undefined, ...options });
  if (plan === undefined)
    throw new UnsupportedError(`${plugin.path}: no system that can be reconfigured was found: ${whatIsThere(guest)}`);
  const patches = checkPatches(plan.patches, disk.value);
  checkAllocation(plugin, patches);
  return { ...plan, patches };
}

function whatIsThere(guest: GuestDisk): string {
  const volumes = guest.volumes.map(
    ({ name, fileSystem, problem }) => `${name} holds ${fileSystem?.kind ?? problem ?? 'nothing known'}`,
  );
  return [...volumes, ...guest.warnings].join('; ') || 'the disk has no partitions';
}

/** A growing layout has room only where the image held data. */
function checkAllocation({ files, plugin, path: pluginPath }: OpenPlugin, patches: readonly Patch[]): void {
  const ranges = files.flatMap(({ map }) => [...map.diskRanges()]).sort((a, b) => a.diskOffset - b.diskOffset);
  let index = 0;
  for (const { offsetBytes, after } of patches) {
    for (let at = offsetBytes; at < offsetBytes + after.length;) {
      while (index < ranges.length && (ranges[index]?.diskOffset ?? 0) + (ranges[index]?.lengthBytes ?? 0) <= at)
        index++;
      const range = ranges[index];
      if (range === undefined || range.diskOffset > at)
        throw new UsageError(
          `${pluginPath}: its layout (${plugin.native.layout}) has no room at byte ${at}, which is to be changed; make it again with a fixed layout`,
        );
      at = range.diskOffset + range.lengthBytes;
    }
  }
}

/**
 * Keeps the plan: writes its patch set, sealed where the plugin file says so, and has the plugin file read with it. Not for one whose native
 * file has been written to.
 * @param file from which `plugin` was opened
 */
export function keepPlan(file: PluginEdit, plugin: OpenPlugin, target: Target, plan: GuestPlan): void {
  const contents = patchSetFile(file.plugin, patchSetOf(file.plugin, target, plan), () => plugin.sealingKey());
  const others = file.plugin.patchSets?.filter((set) => set.target !== target) ?? [];
  // The patch set of another's plugin file is not written over.
  file.requireUnchanged();
  writeFileDurably(patchSetPath(file.path, target), contents, fileModes.patchSet, file.owner);
  const patchSets = [...others, describePatchSet(file.path, target, contents)];
  file.write({ ...file.plugin, patchSets, target });
}

/** Forgets the patch set of a target, or all of them. Returns which. */
export function undo(file: PluginEdit, target?: Target): Target[] {
  const { patchSets = [], target: chosen, ...plugin } = file.plugin;
  const undone = patchSets.filter((set) => target === undefined || set.target === target);
  if (undone.length === 0) return [];
  const gone = undone.map((set) => set.target);
  const kept = patchSets.filter((set) => !gone.includes(set.target));
  const isChosenKept = chosen !== undefined && !gone.includes(chosen);
  file.write({
    ...plugin,
    ...(kept.length === 0 ? {} : { patchSets: kept }),
    ...(isChosenKept ? { target: chosen } : {}),
  });
  // What another has put there under that name is not ours to remove.
  for (const one of undone) if (isPatchSetOf(one, file.path)) fs.rmSync(patchSetPath(file.path, one.target));
  return gone;
}

/** Has the plugin file read with the patch set that it holds for a target already. @throws UsageError where it holds none */
export function choose(file: PluginEdit, target: Target): void {
  if (file.plugin.patchSets?.some((set) => set.target === target) !== true)
    throw new UsageError(
      `${file.path}: has no patch set for ${target}; make it with veneer reconfigure --target ${target}`,
    );
  file.write({ ...file.plugin, target });
}

function patchSetOf(plugin: PluginFile, target: Target, plan: GuestPlan): PatchSet {
  const { bootable } = plugin;
  const sizes = bootable === undefined ? [plugin.disk.sizeBytes] : bootable.volumes.map(({ sizeBytes }) => sizeBytes);
  const images = sourceIdsOf(plugin).map((imageId, index) => ({ imageId, sizeBytes: sizes[index] ?? 0 }));
  const bootConfig = bootable === undefined ? undefined : bootConfigOf(bootable, plan);
  return {
    target,
    images,
    guest: { ...plan.guest },
    changes: [...plan.changes],
    warnings: [...plan.warnings],
    patches:
      bootable === undefined
        ? plan.patches.map((patch) => ({ ...patch, image: 0 }))
        : plan.patches.map((patch) => inVolume(bootable, patch)),
    ...(bootConfig === undefined ? {} : { bootConfig }),
    ...(plan.initramfs === undefined ? {} : { initramfs: plan.initramfs }),
  };
}

function bootConfigOf(bootable: Bootable, { boot, initramfs }: GuestPlan): string | undefined {
  if (boot === undefined || bootable.config === undefined) return undefined;
  const volume = boot.partition === undefined ? undefined : bootable.partitions[boot.partition - 1]?.volume;
  return grubConfig(bootable, {
    linux: { ...boot, ...(volume === undefined ? {} : { volume }) },
    ...(initramfs === undefined ? {} : { initramfsBytes: initramfs.length }),
  });
}

/** Patches are kept by volume: then they hold for any table around it. */
function inVolume(bootable: Bootable, patch: Patch): Patch & { image: number } {
  const end = patch.offsetBytes + patch.after.length;
  for (const { startBytes, volume } of bootable.partitions) {
    const sizeBytes = volume === undefined ? 0 : (bootable.volumes[volume]?.sizeBytes ?? 0);
    if (volume !== undefined && patch.offsetBytes >= startBytes && end <= startBytes + sizeBytes)
      return { ...patch, offsetBytes: patch.offsetBytes - startBytes, image: volume };
  }
  assert(false, `a patch at byte ${patch.offsetBytes} lies in no volume`);
}
