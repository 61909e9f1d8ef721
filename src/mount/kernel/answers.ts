/** Answers to the kernel in the name of another thread. */
import * as fs from '../../base/fs.ts';
import { constants } from 'node:os';
import type { CurrentRequest } from './board.ts';
import { outHeader } from './protocol.ts';

const nothing = new Uint8Array(0);

/** Answers for a thread that never will. */
export function failRequest({ channel, uniqueLow, uniqueHigh }: CurrentRequest): void {
  const unique = BigInt.asUintN(32, BigInt(uniqueLow)) + BigInt.asUintN(32, BigInt(uniqueHigh)) * 2n ** 32n;
  answerRequest(channel, unique, constants.errno.EIO);
}

export function answerRequest(channel: number, unique: bigint, errno: number, body: Uint8Array = nothing): void {
  const header = outHeader.encode({ length: outHeader.sizeBytes + body.length, error: -errno, unique });
  try {
    fs.writeSync(channel, Buffer.concat([header, body]));
  } catch {
    // It was answered just before a death, or the mount is gone.
  }
}
