/** The log of a mount: every thread writes its own lines, at once, so that what is told is there when the request that caused it fails. */
import { pino } from 'pino';
import type { Log } from './native-file-state.ts';

/** @param destination path of the log, or its descriptor where another thread has opened it */
export function openLog(destination: string | number, mountpoint: string): Log {
  const logger = pino(
    { base: { mountpoint } },
    pino.destination({ dest: destination, sync: true, append: true, mode: 0o600 }),
  );
  return (level, message, data) => logger[level](data, message);
}
