/** The plan for whatever system is on a guest's disk: Windows where one is found, else Linux. */
import { isRefusal, type GuestDisk } from './guest-disk.ts';
import { planLinux, type LinuxPlanOptions } from './linux/plan.ts';
import type { GuestPlan, Target } from './plan.ts';
import { planWindows } from './windows/plan-windows.ts';

/** @returns undefined where there is neither; @throws UnsupportedError, FormatError where it cannot be reconfigured */
export function planGuest(guest: GuestDisk, target: Target, options: LinuxPlanOptions): GuestPlan | undefined {
  try {
    const plan = planWindows(guest, target);
    if (plan !== undefined) return plan;
  } catch (error) {
    if (!isRefusal(error)) throw error;
    // A broken volume of Windows beside a Linux is no reason to refuse that.
    const linux = planLinux(guest, target, options);
    if (linux === undefined) throw error;
    return { ...linux, warnings: [...linux.warnings, `Windows is passed over: ${error.message}`] };
  }
  return planLinux(guest, target, options);
}
