/** The plan for whatever system is on a guest's disk: Windows where one is found, else Linux. */
import { UsageError } from '../base/errors.ts';
import { isRefusal, type GuestDisk } from '../volume/open-disk.ts';
import { planLinux, type LinuxPlanOptions } from './linux/plan.ts';
import type { GuestPlan, Target } from './plan.ts';
import { planWindows, type WindowsPlanOptions } from './windows/plan-windows.ts';

/** @returns undefined where there is neither; @throws UnsupportedError, FormatError where it cannot be reconfigured */
export function planGuest(
  guest: GuestDisk,
  target: Target,
  options: LinuxPlanOptions & WindowsPlanOptions,
): GuestPlan | undefined {
  if (options.virtioWin !== undefined && target !== 'qemu-virtio')
    throw new UsageError(`--virtio-win goes with --target qemu-virtio, not with ${target}`);
  try {
    const plan = planWindows(guest, target, options);
    if (plan !== undefined) return plan;
  } catch (error) {
    // Who gives drivers for Windows means the Windows.
    if (!isRefusal(error) || options.virtioWin !== undefined) throw error;
    // A broken volume of Windows beside a Linux is no reason to refuse that.
    const linux = planLinux(guest, target, options);
    if (linux === undefined) throw error;
    return { ...linux, warnings: [...linux.warnings, `Windows is passed over: ${error.message}`] };
  }
  const linux = planLinux(guest, target, options);
  if (linux !== undefined && options.virtioWin !== undefined)
    throw new UsageError(
      `--virtio-win is for Windows, and this guest is ${linux.guest.name}, which has drivers of its own`,
    );
  return linux;
}
