/** Runs the built command line, as a user would, from this checkout. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const tool = fileURLToPath(new URL('../bin/veneer.mjs', import.meta.url));

/**
 * `veneer ARGS`; standard output when it exits with 0.
 * @throws with the tool's own line when it fails
 */
export async function veneer(...args: readonly string[]): Promise<string> {
  try {
    const { stdout } = await run(process.execPath, [tool, ...args]);
    return stdout.trimEnd();
  } catch (error) {
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
    throw new Error(said === '' ? String(error) : said, { cause: error });
  }
}
