/**
 * How other processes speak with a mount: one JSON line to its socket, one JSON line back. What may be asked stands in one table, with the
 * shapes of question and answer. A question goes as `{"command": "fill", "action": "start", ...}` for `fill.start`.
 */
import * as fs from '../base/fs.ts';
import net from 'node:net';
import { z } from 'zod';
import { UnavailableError } from '../base/errors.ts';
import { fileModes } from '../base/file-modes.ts';
import { fillRequests } from '../fill/requests.ts';
import { errorOf, failureOf, failureSchema } from './failure.ts';
import { mountStatusSchema } from './mount-status.ts';

const nothing = z.object({});

const table = {
  status: { ask: nothing, answer: mountStatusSchema },
  /** The mount is gone from its place: its process need not find that out by itself. */
  stop: { ask: nothing, answer: nothing },
  ...fillRequests,
};

export type ControlName = keyof typeof table;
/** What is asked, and what is answered, by the name of the request. */
export type ControlRequests = {
  [N in ControlName]: { ask: z.infer<(typeof table)[N]['ask']>; answer: z.infer<(typeof table)[N]['answer']> };
};
export type Ask<N extends ControlName> = ControlRequests[N]['ask'];
export type Answer<N extends ControlName> = ControlRequests[N]['answer'];
/** What the process of a mount answers with. What it throws reaches who asked. */
export type ControlAnswers = { readonly [N in ControlName]: (ask: Ask<N>) => Answer<N> | Promise<Answer<N>> };

/** The table for those who know the name only when it is asked for. */
const requests: { readonly [N in ControlName]: { ask: z.ZodType<Ask<N>>; answer: z.ZodType<Answer<N>> } } = table;

const envelope = z.object({ command: z.string(), action: z.string().optional() });
const answerWithinMs = 5000;
const maxRequestBytes = 16 * 1024;

/** Serves requests until it is closed. */
export function serveControl(socketPath: string, answers: ControlAnswers): net.Server {
  fs.rmSync(socketPath, { force: true });
  const server = net.createServer((connection) => {
    let text = '';
    connection.on('error', () => connection.destroy());
    connection.on('data', (data) => {
      text += data.toString();
      if (!text.includes('\n') && text.length <= maxRequestBytes) return;
      connection.removeAllListeners('data');
      const answer = answerTo(text.slice(0, text.indexOf('\n') + 1), answers);
      if (answer === undefined) connection.destroy();
      else void reply(connection, answer);
    });
  });
  server.listen(socketPath, () => fs.chmodSync(socketPath, fileModes.socket));
  return server;
}

/** What answers a line. Undefined for anything but a request: nonsense must not end the mount. */
function answerTo(line: string, answers: ControlAnswers): (() => unknown) | undefined {
  const asked = parsed(line);
  const { data } = envelope.safeParse(asked);
  if (data === undefined) return undefined;
  const name = data.action === undefined ? data.command : `${data.command}.${data.action}`;
  return isControlName(name) ? boundAnswer(name, asked, answers) : undefined;
}

function boundAnswer<N extends ControlName>(
  name: N,
  asked: unknown,
  answers: ControlAnswers,
): (() => Answer<N> | Promise<Answer<N>>) | undefined {
  const ask = requests[name].ask.safeParse(asked);
  return ask.success ? () => answers[name](ask.data) : undefined;
}

function isControlName(name: string): name is ControlName {
  return Object.hasOwn(table, name);
}

async function reply(connection: net.Socket, answer: () => unknown): Promise<void> {
  let said: unknown;
  try {
    said = await answer();
  } catch (error) {
    said = failureOf(error);
  }
  connection.end(`${JSON.stringify(said)}\n`);
}

/**
 * @param withinMs how long the answer may take; 0: as long as the mount's process lives
 * @throws UnavailableError when the mount's process does not answer, or with something else; what it answers with, where that is an error
 */
export async function askMount<N extends ControlName>(
  socketPath: string,
  name: N,
  ask: Ask<N>,
  withinMs: number = answerWithinMs,
): Promise<Answer<N>> {
  const [command, action] = name.split('.');
  const line = JSON.stringify({ ...ask, command, action });
  const said = parsed(await exchange(socketPath, line, withinMs));
  if (said === undefined) throw noAnswer(socketPath, 'its answer is cut off');
  const failure = failureSchema.safeParse(said);
  if (failure.success) throw errorOf(failure.data);
  const answer = requests[name].answer.safeParse(said);
  if (answer.success) return answer.data;
  const [issue] = answer.error.issues;
  throw new UnavailableError(
    `the mount's process answers otherwise than this version of veneer expects (${name}, ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}); unmount, and mount again with this version`,
    { cause: answer.error },
  );
}

/** Undefined where it is no JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function exchange(socketPath: string, line: string, withinMs: number): Promise<string> {
  return await new Promise((resolve, reject) => {
    const connection = net.connect(socketPath);
    let text = '';
    const fail = (reason: string): void => {
      connection.destroy();
      reject(noAnswer(socketPath, reason));
    };
    connection.setTimeout(withinMs, () => fail(`no answer within ${withinMs} ms`));
    connection.on('error', (error) => fail(error.message));
    connection.on('data', (data) => (text += data.toString()));
    connection.on('end', () => resolve(text));
    connection.write(`${line}\n`);
  });
}

function noAnswer(socketPath: string, reason: string): UnavailableError {
  return new UnavailableError(`the mount's process does not answer on ${socketPath}: ${reason}`);
}
