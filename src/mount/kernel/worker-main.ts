/** The module that a worker thread of the kernel transport starts with. */
import { serveAsWorker } from './worker.ts';

serveAsWorker();
