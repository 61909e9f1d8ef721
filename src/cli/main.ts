/** The command line. Each command is a file of its own; here is what all share: errors in one line, and the exit code. */
import { Command, CommanderError } from 'commander';
import { describeError, VeneerError } from '../base/errors.ts';
import { bootCommand } from './boot.ts';
import { chainCommand } from './chain.ts';
import { differencingCommand } from './differencing.ts';
import { fillCommand } from './fill.ts';
import { finalizeCommand } from './finalize.ts';
import { imageCommand } from './image.ts';
import { keyCommand } from './key.ts';
import { mountCommand } from './mount.ts';
import { pluginCommand } from './plugin.ts';
import { reconfigureCommand } from './reconfigure.ts';
import { statusCommand } from './status.ts';
import { unmountCommand } from './unmount.ts';

const program = new Command('veneer')
  .description('Boot machines straight from their image backups')
  .version('0.1.0')
  .option('--debug', 'print the stack of an error')
  .addCommand(imageCommand())
  .addCommand(chainCommand())
  .addCommand(keyCommand())
  .addCommand(pluginCommand())
  .addCommand(differencingCommand())
  .addCommand(reconfigureCommand())
  .addCommand(bootCommand())
  .addCommand(mountCommand())
  .addCommand(fillCommand())
  .addCommand(finalizeCommand())
  .addCommand(unmountCommand())
  .addCommand(statusCommand());

/** Commander prints its own complaints; in one line is enough for us. */
function prepare(command: Command): void {
  command
    .exitOverride()
    .showHelpAfterError(false)
    .configureOutput({ outputError: (text, write) => write(`veneer: ${text.replace(/^error: /, '')}`) });
  for (const child of command.commands) prepare(child);
}

prepare(program);
try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode;
  } else {
    process.stderr.write(`veneer: ${describeError(error)}\n`);
    if (program.opts<{ debug?: boolean }>().debug === true || !isKnown(error))
      process.stderr.write(`${stackOf(error)}\n`);
    process.exitCode = 1;
  }
}

/** Our own errors and the system's speak for themselves; anything else is a bug, whose stack is wanted. */
function isKnown(error: unknown): boolean {
  return error instanceof VeneerError || (error instanceof Error && 'syscall' in error);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
