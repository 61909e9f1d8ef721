/** How other processes speak with a mount: one JSON line to its socket, one JSON line back. */
import fs from 'node:fs';
import net from 'node:net';
import { z } from 'zod';
import { UnavailableError } from '../base/errors.ts';
import type { FileStatistics } from './statistics.ts';
import type { TransportStatus } from './transport.ts';

export interface MountStatus {
  readonly pid: number;
  readonly folder: string;
  readonly mountpoint: string;
  readonly transport: string;
  /** What the transport tells of itself, where it can. */
  readonly serving: TransportStatus | undefined;
  readonly startedAt: string;
  readonly cacheBudgetBytes: number;
  readonly residentBytes: number;
  readonly log: string;
  readonly files: readonly FileStatistics[];
}

const requestSchema = z.object({ command: z.enum(['status', 'stop']) });
export type ControlRequest = z.infer<typeof requestSchema>;

const answerWithinMs = 5000;
const maxRequestBytes = 4096;

/** Serves requests until it is closed. */
export function serveControl(socketPath: string, answer: (request: ControlRequest) => unknown): net.Server {
  fs.rmSync(socketPath, { force: true });
  const server = net.createServer((connection) => {
    let text = '';
    connection.on('error', () => connection.destroy());
    connection.on('data', (data) => {
      text += data.toString();
      if (!text.includes('\n') && text.length <= maxRequestBytes) return;
      connection.removeAllListeners('data');
      const request = parseRequest(text);
      if (request === undefined) connection.destroy();
      else connection.end(`${JSON.stringify(answer(request))}\n`);
    });
  });
  server.listen(socketPath, () => fs.chmodSync(socketPath, 0o600));
  return server;
}

/** Undefined for anything but a request: nonsense must not end the mount. */
function parseRequest(text: string): ControlRequest | undefined {
  try {
    return requestSchema.parse(JSON.parse(text.slice(0, text.indexOf('\n') + 1)));
  } catch {
    return undefined;
  }
}

/** @throws UnavailableError when the mount's process does not answer */
export async function askMount(socketPath: string, request: ControlRequest): Promise<unknown> {
  return await new Promise((resolve, reject) => {
    const connection = net.connect(socketPath);
    let text = '';
    const fail = (reason: string): void => {
      connection.destroy();
      reject(new UnavailableError(`the mount's process does not answer on ${socketPath}: ${reason}`));
    };
    connection.setTimeout(answerWithinMs, () => fail(`no answer within ${answerWithinMs} ms`));
    connection.on('error', (error) => fail(error.message));
    connection.on('data', (data) => (text += data.toString()));
    connection.on('end', () => {
      try {
        resolve(JSON.parse(text));
      } catch {
        fail('its answer is cut off');
      }
    });
    connection.write(`${JSON.stringify(request)}\n`);
  });
}
