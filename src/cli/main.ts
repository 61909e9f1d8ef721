/** The command line. Each command is a file of its own; here is what all share: errors in one line, and the exit code. */
import { Command, CommanderError } from 'commander';
import { describeError, inOneLine, VeneerError } from '../base/errors.ts';
import { givenArguments } from '../base/given-names.ts';
import { printable } from '../base/printable.ts';
import { inSources } from '../base/source-stack.ts';
import { warn } from './output.ts';

/** In the order of the help. Each is loaded when it is asked for: a command should not wait for the code of all others. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  image: async () => (await import('./image.ts')).imageCommand(),
  chain: async () => (await import('./chain.ts')).chainCommand(),
  key: async () => (await import('./key.ts')).keyCommand(),
  plugin: async () => (await import('./plugin.ts')).pluginCommand(),
  differencing: async () => (await import('./differencing.ts')).differencingCommand(),
  reconfigure: async () => (await import('./reconfigure.ts')).reconfigureCommand(),
  boot: async () => (await import('./boot.ts')).bootCommand(),
  mount: async () => (await import('./mount.ts')).mountCommand(),
  fill: async () => (await import('./fill.ts')).fillCommand(),
  finalize: async () => (await import('./finalize.ts')).finalizeCommand(),
  unmount: async () => (await import('./unmount.ts')).unmountCommand(),
  files: async () => (await import('./files.ts')).filesCommand(),
  status: async () => (await import('./status.ts')).statusCommand(),
};

const program = new Command('veneer')
  .description('Boot machines straight from their image backups')
  .version('0.1.0')
  .option('--debug', 'print the stack of an error');

/** Commander prints its own complaints; in one line is enough for us. */
function prepare(command: Command): void {
  command
    .exitOverride()
    .showHelpAfterError(false)
    .configureOutput({ outputError: (text) => warn(`veneer: ${inOneLine(text).replace(/^error: /, '')}`) });
  for (const child of command.commands) prepare(child);
}

const given = givenArguments();
const asked = given.find((argument) => !argument.startsWith('-')) ?? '';
for (const [name, load] of Object.entries(commands))
  if (name === asked || !Object.hasOwn(commands, asked)) program.addCommand(await load());
prepare(program);
try {
  await program.parseAsync(given, { from: 'user' });
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode;
  } else {
    warn(`veneer: ${describeError(error)}`);
    if (program.opts<{ debug?: boolean }>().debug === true || !isKnown(error)) warn(...stackOf(error));
    process.exitCode = 1;
  }
}

/** Our own errors and the system's speak for themselves; anything else is a bug, whose stack is wanted. */
function isKnown(error: unknown): boolean {
  return error instanceof VeneerError || (error instanceof Error && 'syscall' in error);
}

/** Its lines; those of the message are one, for what is in it is not ours. */
function stackOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)];
  const { stack = '', message } = error;
  return inSources(stack.replace(message, () => printable(message))).split('\n');
}
