/** Run by tests in a process of its own, to be killed or lied to: consolidates a chain and replaces it. NEWEST OUT */
import { describeError, VeneerError } from '../../../src/base/errors.ts';
import { consolidateChain } from '../../../src/backup/care/consolidate-chain.ts';

const [newest = '', out = ''] = process.argv.slice(2);
try {
  await consolidateChain([newest], out, { replace: true });
} catch (error) {
  if (!(error instanceof VeneerError)) throw error;
  console.error(describeError(error));
  process.exitCode = 3;
}
