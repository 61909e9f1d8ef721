/** An error on its way from one process to another: it stays of its kind, and says where it failed. */
import { z } from 'zod';
import { describeError, errorCodes, systemErrorCode, VeneerError, type ErrorCode } from '../base/errors.ts';
import { inSources } from '../base/source-stack.ts';

export const failureSchema = z.object({
  failure: z.object({
    /** Absent for a bug. One that only a later version knows is told as what it says. */
    code: z.enum(errorCodes).optional().catch('UNAVAILABLE'),
    message: z.string(),
    /** Absent from mounts of earlier versions. */
    stack: z.string().exactOptional(),
  }),
});
export type Failure = z.infer<typeof failureSchema>;

export function failureOf(error: unknown): Failure {
  const code = codeOf(error);
  const message = describeError(error);
  const stack = error instanceof Error ? (error.stack ?? message) : message;
  // Of a bug it is printed by whoever hears of it, also another version, which has no source maps of this one.
  return { failure: code === undefined ? { message, stack: inSources(stack) } : { code, message, stack } };
}

export function errorOf({ failure: { code, message, stack } }: Failure): Error {
  const error = code === undefined ? new Error(message) : new VeneerError(code, message);
  if (stack !== undefined) error.stack = stack;
  return error;
}

/** The system's own errors speak for themselves, as ours do. */
function codeOf(error: unknown): ErrorCode | undefined {
  if (error instanceof VeneerError) return error.code;
  return systemErrorCode(error) === undefined ? undefined : 'UNAVAILABLE';
}
