/**
 * All that the commands print goes through here, a line at a time. A line may hold names, and what a disk or a guest says of itself: it stays
 * one line of plain text whatever is in it (base/printable.ts). Only progress bars, which move the cursor themselves, are drawn elsewhere.
 */
import type { z } from 'zod';
import { systemErrorCode } from '../base/errors.ts';
import * as fs from '../base/fs.ts';
import { writeFailure } from '../base/full-io.ts';
import { printable, printableJson } from '../base/printable.ts';
import type { Log } from '../base/log.ts';

/** What a command answers. */
export function say(...lines: readonly string[]): void {
  if (lines.length > 0) sayBytes(Buffer.from(textOf(lines)));
}

/** A value that nobody changes any more. */
export type Told<T> = T extends object ? { readonly [K in keyof T]: Told<T[K]> } : T;

/** The same for programs. @param schema what is promised of it (native-notes/schemas/): nothing else is printed */
export function sayJson<S extends z.ZodType>(schema: S, value: Told<z.input<S>>): void {
  sayBytes(Buffer.from(`${printableJson(JSON.stringify(schema.parse(value), null, 2))}\n`));
}

const standardOutput = 1;
/** For a pipe that is full, and that somebody has set not to wait. */
const fullPauseMs = 5;

/** Bytes as they are, for whoever reads them. @returns false when nobody does any more */
export function sayBytes(bytes: Uint8Array): boolean {
  for (let done = 0; done < bytes.length;) {
    try {
      done += fs.writeSync(standardOutput, bytes, done);
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === 'EPIPE') return false;
      if (code !== 'EAGAIN') throw writeFailure('standard output', 'write to it', error);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, fullPauseMs);
    }
  }
  return true;
}

/** What is worth knowing beside the answer, and what went wrong. */
export function warn(...lines: readonly string[]): void {
  if (lines.length > 0) process.stderr.write(textOf(lines));
}

/** For work of a mount that this process does: what goes wrong is told as it happens; what goes well, by the answer. */
export const complain: Log = (level, message) => {
  if (level !== 'info') warn(message);
};

function textOf(lines: readonly string[]): string {
  return `${lines.map(printable).join('\n')}\n`;
}
