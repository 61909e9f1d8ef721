/** One thread of a creation. */
import { teamMember } from '../base/worker-team.ts';
import { writeLeaves, type CreateJob } from './create-leaves.ts';
import type { WrittenLeaf } from './leaf-writer.ts';

teamMember<CreateJob, WrittenLeaf>(writeLeaves);
