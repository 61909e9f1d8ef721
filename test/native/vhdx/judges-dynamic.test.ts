import { judgeLayout } from './judged-disks.ts';

judgeLayout('dynamic');
