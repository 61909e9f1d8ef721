/** Progress for people: a bar with rate and time left on a terminal, one line for each 10 % otherwise. */
import { Presets, SingleBar } from 'cli-progress';
import { printable } from '../base/printable.ts';
import { formatBytes, formatSeconds } from '../base/units.ts';
import { warn } from './output.ts';

export interface ProgressReporter {
  update(doneBytes: number, totalBytes: number): void;
  stop(): void;
}

/** Reports to standard error, so that standard output stays what the command answers. */
export function reportProgress(action: string): ProgressReporter {
  return process.stderr.isTTY ? bar(action) : lines(action);
}

function bar(action: string): ProgressReporter {
  const startMs = performance.now();
  const shown = new SingleBar(
    {
      format: '{action} [{bar}] {percentage}% | {rate}/s | {left} left',
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
    },
    Presets.shades_classic,
  );
  let started = false;
  return {
    update(doneBytes, totalBytes) {
      const seconds = Math.max(0.001, (performance.now() - startMs) / 1000);
      const rate = doneBytes / seconds;
      const payload = {
        action: printable(action),
        rate: formatBytes(Math.round(rate)),
        left: rate > 0 ? formatSeconds((totalBytes - doneBytes) / rate) : '?',
      };
      if (!started) shown.start(totalBytes, doneBytes, payload);
      started = true;
      shown.update(doneBytes, payload);
    },
    stop: () => shown.stop(),
  };
}

function lines(action: string): ProgressReporter {
  let printed = 0;
  return {
    update(doneBytes, totalBytes) {
      const tenths = totalBytes === 0 ? 10 : Math.floor((doneBytes / totalBytes) * 10);
      if (tenths <= printed) return;
      printed = tenths;
      warn(`${action}: ${tenths * 10} % (${formatBytes(doneBytes)} of ${formatBytes(totalBytes)})`);
    },
    stop() {},
  };
}
