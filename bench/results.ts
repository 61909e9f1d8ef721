/** RESULTS.md: each benchmark owns the text between its two marks; what people wrote around them stays. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { firstLine } from './processes.ts';

const resultsFile = fileURLToPath(new URL('./RESULTS.md', import.meta.url));
const repository = fileURLToPath(new URL('..', import.meta.url));

/** Replaces what RESULTS.md says of one benchmark; appends a section when there is none. */
export function writeSection(name: string, text: string): void {
  const before = fs.existsSync(resultsFile) ? fs.readFileSync(resultsFile, 'utf8') : '';
  const [begin, end] = [`<!-- ${name}: written by npm run bench -->`, `<!-- ${name}: end -->`];
  const section = `${begin}\n\n${text}\n\n${end}`;
  const from = before.indexOf(begin);
  const to = before.indexOf(end, from);
  const after =
    from >= 0 && to >= 0
      ? before.slice(0, from) + section + before.slice(to + end.length)
      : `${before.trimEnd()}\n\n## ${name}\n\n${section}\n`.trimStart();
  fs.writeFileSync(resultsFile, after);
}

/** When, of what state of the code, how and where: the head of each section. */
export async function circumstances(command: string): Promise<string> {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: repository, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  const changed = git('status', '--porcelain', '--', 'src') === '' ? '' : ', with changes';
  const versions = await Promise.all([
    firstLine('qemu-img', ['--version']),
    firstLine('xmount', ['--version']),
    firstLine('fio', ['--version']),
  ]);
  const [cpu] = os.cpus();
  return [
    `- ${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC, commit ${git('rev-parse', '--short', 'HEAD')}${changed}: \`${command}\``,
    `- ${os.availableParallelism()} cores (${cpu?.model.trim() ?? '?'}), ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}, Node ${process.versions.node}`,
    `- ${versions
      .filter((version) => version !== undefined)
      .map(shortVersion)
      .join(', ')}`,
    `- load average ${os
      .loadavg()
      .map((load) => load.toFixed(1))
      .join(', ')} at the end, this run included; run at nice ${os.getPriority()}`,
  ].join('\n');
}

function shortVersion(line: string): string {
  return line.replace(/ (\(Debian|Copyright).*$/, '');
}
