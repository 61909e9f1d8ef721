/** An error on its way from one process to another. */
import { z } from 'zod';
import { errorCodes } from '../base/errors.ts';

export const failureSchema = z.object({
  failure: z.object({
    /** Absent where it was no error of ours; one that a later version knows, and this does not, is of what was asked for. */
    code: z.enum(errorCodes).optional().catch('UNAVAILABLE'),
    message: z.string(),
  }),
});
