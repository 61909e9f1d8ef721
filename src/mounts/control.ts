/** How other processes speak with a mount: one JSON line to its socket, one JSON line back. */
import * as fs from '../base/fs.ts';
import net from 'node:net';
import { z } from 'zod';
import { UnavailableError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { fromFailure, toFailure, type Failure } from '../base/worker-team.ts';
import type { FillStatus } from '../fill/job.ts';
import type { SourceStatus } from '../base/source-watch.ts';
import type { FileStatistics } from '../fill/statistics.ts';
import type { TransportStatus } from './transport-status.ts';

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
  /** `reason`: why what is read of a file fails or takes long, where its source does not answer. */
  readonly files: readonly (FileStatistics & { readonly reason?: string })[];
  /** Those that do not answer. Absent from mounts of earlier versions. */
  readonly sources?: readonly SourceStatus[];
  /** Absent from mounts of earlier versions. */
  readonly fills?: readonly FillStatus[];
}

const fillActions = ['start', 'pause', 'resume', 'cancel', 'status', 'verify', 'finalize'] as const;
export type FillAction = (typeof fillActions)[number];

const requestSchema = z.union([
  z.object({ command: z.enum(['status', 'stop']) }),
  z.object({
    command: z.literal('fill'),
    action: z.enum(fillActions),
    /** Path of the plugin file under the mount. */
    file: z.string(),
    isPolite: z.boolean().exactOptional(),
    isVerified: z.boolean().exactOptional(),
    /** Whether finalizing may make a plain file of a sealed one. */
    decrypts: z.boolean().exactOptional(),
    /** What all fills of the mount share; 0: no limit; as it is, when absent. */
    bytesPerSecond: z.number().nonnegative().exactOptional(),
  }),
]);
export type ControlRequest = z.infer<typeof requestSchema>;
export type FillRequest = Extract<ControlRequest, { command: 'fill' }>;

const answerWithinMs = 5000;
const maxRequestBytes = 16 * 1024;

/** Serves requests until it is closed. What `answer` throws reaches who asked. */
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
      else void reply(connection, () => answer(request));
    });
  });
  server.listen(socketPath, () => fs.chmodSync(socketPath, fileModes.socket));
  return server;
}

async function reply(connection: net.Socket, answer: () => unknown): Promise<void> {
  let said: unknown;
  try {
    said = await answer();
  } catch (error) {
    said = { failure: toFailure(error) } satisfies Failure;
  }
  connection.end(`${JSON.stringify(said ?? {})}\n`);
}

/** Undefined for anything but a request: nonsense must not end the mount. */
function parseRequest(text: string): ControlRequest | undefined {
  try {
    return requestSchema.parse(JSON.parse(text.slice(0, text.indexOf('\n') + 1)));
  } catch {
    return undefined;
  }
}

/**
 * @param withinMs how long the answer may take; 0: as long as the mount's process lives
 * @throws UnavailableError when the mount's process does not answer; what it answers with, where that is an error
 */
export async function askMount(
  socketPath: string,
  request: ControlRequest,
  withinMs: number = answerWithinMs,
): Promise<unknown> {
  const answer = await ask(socketPath, request, withinMs);
  if (typeof answer === 'object' && answer !== null && 'failure' in answer) throw fromFailure(answer as Failure);
  return answer;
}

async function ask(socketPath: string, request: ControlRequest, withinMs: number): Promise<unknown> {
  return await new Promise((resolve, reject) => {
    const connection = net.connect(socketPath);
    let text = '';
    const fail = (reason: string): void => {
      connection.destroy();
      reject(new UnavailableError(`the mount's process does not answer on ${socketPath}: ${reason}`));
    };
    connection.setTimeout(withinMs, () => fail(`no answer within ${withinMs} ms`));
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
