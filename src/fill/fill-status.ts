/**
 * What a fill tells whoever asks: plain values, which may cross a socket as JSON. A mount of an earlier version may serve for weeks: what it
 * does not tell yet is optional here, and says so.
 */
import { z } from 'zod';
import { replacementStates } from '../replacement/layout.ts';

/** What the threads of a fill do, one step after the other. */
export const fillSteps = ['count', 'copy', 'flush', 'verify', 'prove', 'decrypt'] as const;
export type FillStep = (typeof fillSteps)[number];

/** How far the fill of one native file is. */
export const fillStatusSchema = z.object({
  name: z.string(),
  state: z.enum(replacementStates),
  activity: z.enum([...fillSteps, 'waiting', 'queued', 'idle']),
  sizeBytes: z.number(),
  presentBytes: z.number(),
  writtenBytes: z.number(),
  /** Whether that is only what is known of: the guest may have written past the map. Absent from mounts of earlier versions. */
  isWrittenDirectly: z.boolean().exactOptional(),
  /** What the image holds data for; 0 until it was counted. */
  dataBytes: z.number(),
  hotBytes: z.number(),
  coldBytes: z.number(),
  verifiedBytes: z.number(),
  repairedBytes: z.number(),
  /** While it is decrypted into a plain file, and once it was: how much of what it holds. Absent from mounts of earlier versions. */
  decrypted: z.object({ doneBytes: z.number(), ofBytes: z.number() }).exactOptional(),
  isYielding: z.boolean(),
  bytesPerSecond: z.number(),
  /** Absent while nothing is copied. */
  secondsLeft: z.number().optional(),
  /** Why it waits, paused itself or failed. */
  note: z.string(),
});
/** Of each file of a disk that has a replacement. */
export const fillStatusesSchema = z.array(fillStatusSchema);
export type FillStatus = z.infer<typeof fillStatusSchema>;

/** What a replacement holds, against what it should hold (prove.ts). */
export const proofSchema = z.object({
  /** SHA-256 of what the replacement reads as. */
  replacementSha256: z.string(),
  /** SHA-256 of the synthesized file with what is the guest's laid over it; undefined where nobody knows what is the guest's. */
  expectedSha256: z.string().optional(),
  sizeBytes: z.number(),
  /** Bytes in units that were compared with the synthesized file, and are as it is. */
  equalBytes: z.number(),
  /** Behind the end of the synthesized file, or of what was left of it by a cut: the guest's. */
  grownBytes: z.number(),
  /** In units that differ from the synthesized file, and that the guest may have written or not. */
  unknownBytes: z.number(),
  /** Whether the guest may have written past the map. */
  isDirect: z.boolean(),
  /** Units that the guest wrote, as far as the map knows. */
  writtenUnits: z.number(),
  /** Units that only the image has so far. */
  missingUnits: z.number(),
  /** Bytes at which units begin that differ where the guest wrote nothing; the first ones. */
  differences: z.array(z.number()),
});
export type Proof = z.infer<typeof proofSchema>;

/** The proof of one native file. */
export const fileProofSchema = z.object({ name: z.string(), proof: proofSchema });
export const fileProofsSchema = z.array(fileProofSchema);
export type FileProof = z.infer<typeof fileProofSchema>;

/** What became of a disk that was finalized. */
export const finalizedSchema = z.object({
  /** The path of what the plugin file is kept as. */
  record: z.string(),
  decrypted: z.array(z.object({ name: z.string(), bytes: z.number() })),
});
export type Finalized = z.infer<typeof finalizedSchema>;
