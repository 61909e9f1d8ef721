/** How a fill is told of, in `fill status` and `status`. */
import { formatBytes, formatSeconds } from '../base/units.ts';
import type { FillStatus } from '../fill/fill-status.ts';

/** One native file, in two lines. */
export function statusText(status: FillStatus): string[] {
  const { name, state, activity, note } = status;
  const isShown = activity === 'decrypt' || (activity !== 'idle' && state === 'filling');
  const doing = isShown ? ` (${activityText(status)})` : '';
  const left = status.secondsLeft === undefined ? '' : `, ${formatSeconds(status.secondsLeft)} left`;
  const rate = status.bytesPerSecond === 0 ? '' : `, ${formatBytes(status.bytesPerSecond)}/s${left}`;
  const copied = status.hotBytes + status.coldBytes;
  return [
    `${name}: ${state}${doing}, ${formatBytes(status.presentBytes)} of ${formatBytes(status.sizeBytes)} in place, ${status.isWrittenDirectly === true ? 'at least ' : ''}${formatBytes(status.writtenBytes)} of it written by the guest${rate}`,
    ...(copied === 0
      ? []
      : [
          `  copied ${formatBytes(copied)} of ${formatBytes(status.dataBytes)}: ${formatBytes(status.hotBytes)} since the guest asked for it, ${formatBytes(status.coldBytes)} in its turn`,
        ]),
    ...(note === '' ? [] : [`  ${note}`]),
  ];
}

function activityText({ activity, isYielding, decrypted }: FillStatus): string {
  const doing = {
    count: 'counting',
    copy: 'copying',
    flush: 'flushing',
    verify: 'reading back',
    prove: 'proving',
    decrypt: `decrypting, ${formatBytes(decrypted?.doneBytes ?? 0)} of ${formatBytes(decrypted?.ofBytes ?? 0)}`,
    waiting: 'waiting for the image',
    queued: 'waiting for its turn',
    idle: '',
  }[activity];
  return isYielding && activity === 'copy' ? `${doing}, yielding to the guest` : doing;
}
