/** A passphrase from the terminal, without showing it. */
import * as fs from '../base/fs.ts';
import tty from 'node:tty';
import { UsageError } from '../base/errors.ts';
import { printable } from '../base/printable.ts';

/** Whether there is a terminal to ask at. */
export function canAsk(): boolean {
  return process.stdin.isTTY && process.stderr.isTTY;
}

/** Asks at the process's terminal, even if its input is another. @throws UsageError when there is none, or it is interrupted */
export async function askHidden(question: string): Promise<string> {
  let fd: number;
  try {
    fd = fs.openSync('/dev/tty', 'r+');
  } catch (error) {
    throw new UsageError('there is no terminal to ask for the passphrase; use --passphrase-file or --passphrase-fd', {
      cause: error,
    });
  }
  const terminal = new tty.ReadStream(fd);
  terminal.setRawMode(true);
  fs.writeSync(fd, printable(question));
  try {
    return await readLine(terminal);
  } finally {
    terminal.setRawMode(false);
    fs.writeSync(fd, '\n');
    terminal.destroy();
  }
}

function readLine(terminal: tty.ReadStream): Promise<string> {
  return new Promise((resolve, reject) => {
    const typed: number[] = [];
    const interrupted = (): void => reject(new UsageError('interrupted; nothing was done'));
    terminal.on('error', reject);
    terminal.on('end', interrupted);
    terminal.on('data', (data: Buffer) => {
      for (const byte of data) {
        if (byte === 0x0d || byte === 0x0a) resolve(Buffer.from(typed).toString('utf8'));
        else if (byte === 0x03 || byte === 0x04) interrupted();
        else if (byte === 0x15) typed.length = 0;
        else if (byte === 0x7f || byte === 0x08) dropCharacter(typed);
        else typed.push(byte);
      }
    });
  });
}

/** The last one, with all of its bytes in UTF-8. */
function dropCharacter(typed: number[]): void {
  for (let byte = typed.pop(); byte !== undefined && (byte & 0xc0) === 0x80; byte = typed.pop());
}
