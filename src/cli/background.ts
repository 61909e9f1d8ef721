/**
 * A mount in the background: a process of its own serves it. The one that starts it hands over the keys through a pipe, and waits on another
 * for its first word: that it serves, or why it does not.
 */
import { spawn } from 'node:child_process';
import type { Writable } from 'node:stream';
import { z } from 'zod';
import * as fs from '../base/fs.ts';
import { commandOf } from '../base/byte-arguments.ts';
import { UnavailableError } from '../base/errors.ts';
import { givenArguments } from '../base/given-names.ts';
import type { Credential } from '../backup/crypto/key-slots.ts';
import { errorOf, failureOf, failureSchema } from '../mounts/failure.ts';

const readyFd = 3;
const keysFd = 4;

const servingSchema = z.object({ pid: z.number(), hint: z.string().optional() });
export type Serving = z.infer<typeof servingSchema>;

const firstWordSchema = z.union([servingSchema, failureSchema]);

const credentialsSchema = z.array(z.object({ kind: z.enum(['key file', 'passphrase']), secret: z.base64() }));

/**
 * Starts this command again, in the foreground of a process of its own.
 * @returns when it serves
 * @throws the error for which it does not, of the kind that it had there; UnavailableError where it ended without a word
 */
export async function serveInBackground(mountpoint: string, credentials: readonly Credential[]): Promise<Serving> {
  const handedOver = ['--foreground', '--ready-fd', String(readyFd), '--keys-fd', String(keysFd)];
  const { program, args } = commandOf(process.execPath, [process.argv[1] ?? '', ...givenArguments(), ...handedOver]);
  const child = spawn(program, args, { detached: true, stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  sendCredentials(child.stdio[keysFd] as Writable, credentials);
  const text = await new Promise<string>((resolve, reject) => {
    let heard = '';
    child.on('error', reject);
    child.stdio[readyFd]?.on('data', (data: Buffer) => (heard += data.toString()));
    child.stdio[readyFd]?.on('end', () => resolve(heard));
  });
  child.unref();
  if (text === '')
    throw new UnavailableError(
      `${mountpoint}: the process that should serve it ended; run with --foreground to see why`,
    );
  return servingIn(text);
}

/** In the process that serves: the line for the one that waits. */
export function firstWord(said: Serving | { readonly error: unknown }): string {
  return `${JSON.stringify('error' in said ? failureOf(said.error) : said)}\n`;
}

/** What the line says. @throws the error that it tells of */
export function servingIn(line: string): Serving {
  const word = firstWordSchema.parse(JSON.parse(line));
  if ('failure' in word) throw errorOf(word);
  return word;
}

/** Through a pipe: what is in arguments or the environment others can see. */
function sendCredentials(pipe: Writable, credentials: readonly Credential[]): void {
  // A process that ends at once has said why on the other pipe.
  pipe.on('error', () => undefined);
  const encoded = credentials.map(({ kind, secret }) => ({ kind, secret: Buffer.from(secret).toString('base64') }));
  pipe.end(JSON.stringify(encoded));
}

/** In the process that serves. @param fd is closed */
export function receiveCredentials(fd: number): Credential[] {
  const sent = credentialsSchema.parse(JSON.parse(fs.readFileSync(fd, 'utf8')));
  fs.closeSync(fd);
  return sent.map(({ kind, secret }) => ({ kind, secret: Buffer.from(secret, 'base64') }));
}
