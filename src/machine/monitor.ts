/** QEMU's monitor (QMP) over a socket: enough to ask the guest to power down, and QEMU to end. */
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnavailableError } from '../base/errors.ts';

const answersWithinMs = 5000;
const tryEveryMs = 50;

/**
 * Sends one command to the QEMU that listens at `socketPath`.
 * @throws UnavailableError when nobody answers, or the answer is an error
 */
export async function tellQemu(socketPath: string, command: 'system_powerdown' | 'quit'): Promise<void> {
  const endMs = performance.now() + answersWithinMs;
  for (;;) {
    try {
      await converse(socketPath, [{ execute: 'qmp_capabilities' }, { execute: command }]);
      return;
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
    await sleep(tryEveryMs);
  }
}

/** QEMU greets, then answers each command with one line; events may come between. */
async function converse(socketPath: string, commands: readonly object[]): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const connection = net.connect(socketPath);
    const left = [...commands];
    let text = '';
    const fail = (cause: unknown): void => {
      connection.destroy();
      reject(new UnavailableError("QEMU's monitor does not answer", { cause }));
    };
    connection.setTimeout(answersWithinMs, () => fail(new Error('it said nothing')));
    connection.on('error', fail);
    // "quit" may end QEMU before its answer is out.
    connection.on('close', () => (left.length === 0 ? resolve() : fail(new Error('it hung up'))));
    connection.setEncoding('utf8').on('data', (data: string) => {
      text += data;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = JSON.parse(text.slice(0, end)) as Readonly<Record<string, unknown>>;
        text = text.slice(end + 1);
        if ('error' in line) fail(new Error(JSON.stringify(line['error'])));
        if (!('QMP' in line) && !('return' in line)) continue;
        const next = left.shift();
        if (next === undefined) connection.end();
        else connection.write(`${JSON.stringify(next)}\n`);
      }
    });
  });
}
