/** What may be asked of the fills of a folder, and what is answered: as it goes over a socket. answers.ts does it. */
import { z } from 'zod';
import { fileProofsSchema, fillStatusesSchema, finalizedSchema } from './fill-status.ts';

const ofDisk = z.object({
  /** Path of the plugin file, from the folder. */
  file: z.string(),
});

const toCopy = ofDisk.extend({
  isPolite: z.boolean().exactOptional(),
  isVerified: z.boolean().exactOptional(),
  /** What all fills of the folder share; 0: no limit; as it is, when absent. */
  bytesPerSecond: z.number().nonnegative().exactOptional(),
});
export type CopyAsk = z.infer<typeof toCopy>;

const toFinalize = ofDisk.extend({
  /** Whether a plain file may be made of a sealed one. */
  decrypts: z.boolean().exactOptional(),
});

export const fillRequests = {
  'fill.start': { ask: toCopy, answer: fillStatusesSchema },
  'fill.pause': { ask: ofDisk, answer: fillStatusesSchema },
  'fill.resume': { ask: toCopy, answer: fillStatusesSchema },
  'fill.cancel': { ask: ofDisk, answer: fillStatusesSchema },
  'fill.status': { ask: ofDisk, answer: fillStatusesSchema },
  'fill.verify': { ask: ofDisk, answer: fileProofsSchema },
  'fill.finalize': { ask: toFinalize, answer: finalizedSchema },
};

export type FillRequestName = keyof typeof fillRequests;
export type FillAnswers = {
  readonly [N in FillRequestName]: (
    ask: z.infer<(typeof fillRequests)[N]['ask']>,
  ) => Promise<z.infer<(typeof fillRequests)[N]['answer']>>;
};
