/** A thread of a fill. */
import { teamMember } from '../base/worker-team.ts';
import { runFillTask, type FillMessage, type FillTask } from './fill-thread.ts';

teamMember<FillTask, FillMessage>((task, post) => runFillTask(task, post));
