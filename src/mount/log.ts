/**
 * The log of a mount: every thread writes its own lines, at once, so that what is told is there when the request that caused it fails. It is
 * bounded: of each kind of line (log-limit.ts) one a minute, each of a bounded length, and in all so many bytes, after which it begins anew.
 */
import { pino } from 'pino';
import * as fs from '../base/fs.ts';
import { printable, printableJson } from '../base/printable.ts';
import { MiB } from '../base/units.ts';
import type { Log } from '../base/log.ts';
import { LogLimit } from './log-limit.ts';

const maxLogBytes = MiB;
const maxMessageChars = 4096;
/** What differs between lines of one kind: numbers, checksums. */
const details = /0x[0-9a-f]+|\b[0-9a-f]{16,}\b|\d+/gi;

export class MountLog {
  readonly #fd: number;
  readonly #limit: LogLimit;
  readonly #logger: pino.Logger;

  /** @param fd of the log, open for appending */
  constructor(fd: number, mountpoint: string, limit: LogLimit) {
    this.#fd = fd;
    this.#limit = limit;
    this.#logger = pino({ base: { mountpoint } }, { write: (line) => this.#write(line) });
  }

  readonly log: Log = (level, message, data) => {
    const shown = printable(message).slice(0, maxMessageChars);
    const kind = `${level} ${typeof data['file'] === 'string' ? data['file'] : ''} ${shown.replaceAll(details, '#')}`;
    if (this.#limit.admits(kind, `${level} ${shown}`, nowSeconds())) this.#logger[level](data, shown);
  };

  /** Tells how many lines were left out, of kinds whose minute is over; at the end, of all. */
  tellLeftOut(isEnd = false): void {
    for (const { text, count } of this.#limit.leftOut(nowSeconds(), isEnd))
      this.#logger[text.startsWith('info ') ? 'info' : 'warn'](
        { leftOut: count },
        `${count} more of these were left out: ${text.slice(text.indexOf(' ') + 1)}`,
      );
  }

  #write(line: string): void {
    const { size } = fs.fstatSync(this.#fd);
    if (size > maxLogBytes) {
      fs.ftruncateSync(this.#fd, 0);
      this.#logger.warn({}, `the log had ${size} bytes, as many as it may; what stood here is gone`);
    }
    fs.writeSync(this.#fd, printableJson(line));
  }
}

function nowSeconds(): number {
  return Math.floor(Date.now() / 1000);
}
