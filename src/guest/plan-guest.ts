/** The plan for whatever system is on a guest's disk: that of the first planner whose system is found there. */
import { UsageError } from '../base/errors.ts';
import { isRefusal, type GuestDisk } from '../volume/open-disk.ts';
import { planLinux, type LinuxPlanOptions } from './linux/plan.ts';
import type { GuestPlan, Target } from './plan.ts';
import { planWindows, type WindowsPlanOptions } from './windows/plan-windows.ts';

type PlanOptions = LinuxPlanOptions & WindowsPlanOptions;

interface GuestPlanner {
  /** For people. */
  readonly what: string;
  /** The option that means a system of this kind and no other, as it was given; undefined where it was not. */
  means(options: PlanOptions): string | undefined;
  /** @returns undefined where there is no such system; @throws UnsupportedError, FormatError where it cannot be reconfigured */
  plan(guest: GuestDisk, target: Target, options: PlanOptions): GuestPlan | undefined;
}

/** A folder and an entry here is all that a further system takes. */
const planners: readonly GuestPlanner[] = [
  {
    what: 'Windows',
    means: ({ virtioWin }) => (virtioWin === undefined ? undefined : '--virtio-win'),
    plan: planWindows,
  },
  { what: 'Linux', means: () => undefined, plan: planLinux },
];

/**
 * A system that cannot be reconfigured is passed over where another one can: a broken volume of Windows beside a Linux is no reason to refuse that.
 * @returns undefined where there is none
 * @throws UnsupportedError, FormatError where what is found cannot be reconfigured; UsageError where an option is not for it
 */
export function planGuest(guest: GuestDisk, target: Target, options: PlanOptions): GuestPlan | undefined {
  if (options.virtioWin !== undefined && target !== 'qemu-virtio')
    throw new UsageError(`--virtio-win goes with --target qemu-virtio, not with ${target}`);
  const meant = planners.find((planner) => planner.means(options) !== undefined);
  let refusal: { readonly planner: GuestPlanner; readonly error: Error } | undefined;
  for (const planner of planners) {
    const plan = attempt(() => planner.plan(guest, target, options));
    if (plan instanceof Error && planner === meant) throw plan;
    if (plan instanceof Error) refusal ??= { planner, error: plan };
    if (plan === undefined || plan instanceof Error) continue;
    if (meant !== undefined && meant !== planner)
      throw new UsageError(
        `${meant.means(options) ?? ''} is for ${meant.what}, and this guest is ${plan.guest.name}, which has drivers of its own`,
      );
    if (refusal === undefined) return plan;
    const passedOver = `${refusal.planner.what} is passed over: ${refusal.error.message}`;
    return { ...plan, warnings: [...plan.warnings, passedOver] };
  }
  if (refusal !== undefined) throw refusal.error;
  return undefined;
}

/** @returns a refusal as the error that it is */
function attempt(plan: () => GuestPlan | undefined): GuestPlan | Error | undefined {
  try {
    return plan();
  } catch (error) {
    if (isRefusal(error)) return error;
    throw error;
  }
}
