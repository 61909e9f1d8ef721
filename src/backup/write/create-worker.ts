/** One thread of a creation from a raw file or block device. */
import { teamMember } from '../../base/worker-team.ts';
import { openFileDisk } from '../../disk/file.ts';
import { writeLeaves, type CreateJob } from './create-leaves.ts';
import type { WrittenLeaf } from './leaf-writer.ts';

teamMember<CreateJob, WrittenLeaf>((job, post) => writeLeaves(job, openFileDisk, post));
