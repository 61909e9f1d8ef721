/** How other processes speak with a mount: one JSON line to its socket, one JSON line back. */
import fs from 'node:fs';
import net from 'node:net';
import { UnavailableError } from '../base/errors.ts';
import type { FileStatistics } from './statistics.ts';

export interface MountStatus {
  readonly pid: number;
  readonly folder: string;
  readonly mountpoint: string;
  readonly transport: string;
  readonly startedAt: string;
  readonly cacheBudgetBytes: number;
  readonly residentBytes: number;
  readonly log: string;
  readonly files: readonly FileStatistics[];
}

export type ControlRequest = { readonly command: 'status' } | { readonly command: 'stop' };

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
      if (text.length > maxRequestBytes) connection.destroy();
      if (!text.includes('\n')) return;
      connection.end(`${JSON.stringify(answer(JSON.parse(text) as ControlRequest))}\n`);
    });
  });
  server.listen(socketPath, () => fs.chmodSync(socketPath, 0o600));
  return server;
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
