/** One thread of a creation from any kind of source. */
import { teamMember } from '../base/worker-team.ts';
import { writeLeaves, type CreateJob } from '../backup/write/create-leaves.ts';
import type { WrittenLeaf } from '../backup/write/leaf-writer.ts';
import { openSource } from './open-source.ts';

teamMember<CreateJob, WrittenLeaf>((job, post) => writeLeaves(job, openSource, post));
