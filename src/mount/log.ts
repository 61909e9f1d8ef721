/** The log of a mount: every thread writes its own lines, at once, so that what is told is there when the request that caused it fails. */
import { pino } from 'pino';
import type { Log } from './native-file-state.ts';

/** @param fd of the log */
export function openLog(fd: number, mountpoint: string): Log {
  const logger = pino({ base: { mountpoint } }, pino.destination({ dest: fd, sync: true }));
  return (level, message, data) => logger[level](data, message);
}
