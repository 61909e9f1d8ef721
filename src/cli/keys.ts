/** The options that give a command its keys: the same for all of them. A key is never an argument itself. */
import type { Command } from 'commander';
import { UsageError } from '../base/errors.ts';
import { closing } from '../base/ownership.ts';
import { credentialFromBytes, credentialFromFd, credentialFromFile } from '../backup/crypto/credential.ts';
import { Image } from '../backup/read/image.ts';
import { KeyRing } from '../backup/crypto/key-ring.ts';
import type { Credential } from '../backup/crypto/key-slots.ts';
import { collect, descriptorsOption } from './arguments.ts';
import { askHidden, canAsk } from './prompt.ts';

export interface KeyFlags {
  readonly keyFile?: readonly string[];
  readonly keyFd?: readonly number[];
  readonly passphraseFile?: readonly string[];
  readonly passphraseFd?: readonly number[];
  readonly askPassphrase?: boolean;
}

export function withKeyOptions(command: Command): Command {
  return command
    .option('--key-file <file>', 'the key of an encrypted chain; only its owner may read it', collect)
    .addOption(descriptorsOption('--key-fd <fd>', 'the same from an open file descriptor'))
    .option('--passphrase-file <file>', 'a passphrase of an encrypted chain; only its owner may read it', collect)
    .addOption(descriptorsOption('--passphrase-fd <fd>', 'the same from an open file descriptor'))
    .option('--ask-passphrase', 'ask for the passphrase at the terminal');
}

/** What the options give. @throws UsageError, UnavailableError */
export async function credentialsOf(flags: KeyFlags): Promise<Credential[]> {
  const credentials = [
    ...(flags.keyFile ?? []).map((file) => credentialFromFile('key file', file)),
    ...(flags.keyFd ?? []).map((fd) => credentialFromFd('key file', fd, `descriptor ${fd}`)),
    ...(flags.passphraseFile ?? []).map((file) => credentialFromFile('passphrase', file)),
    ...(flags.passphraseFd ?? []).map((fd) => credentialFromFd('passphrase', fd, `descriptor ${fd}`)),
  ];
  if (flags.askPassphrase === true) credentials.push(await askPassphrase('passphrase: '));
  return credentials;
}

/**
 * The keys for an image: of the options; where there are none and the image is encrypted, a person at a terminal is asked.
 * @param imagePath undefined: there is no image to ask for
 */
export async function keysFor(imagePath: string | undefined, flags: KeyFlags): Promise<KeyRing> {
  const credentials = await credentialsOf(flags);
  if (imagePath !== undefined && credentials.length === 0 && canAskFor(imagePath))
    credentials.push(await askPassphrase(`passphrase of ${imagePath}: `));
  return new KeyRing({ credentials, chains: [] });
}

/** Whether there is an encrypted image, and someone to ask for its passphrase. */
export function canAskFor(imagePath: string): boolean {
  return canAsk() && isSealed(imagePath);
}

/** The one key that a new slot is made for; asked for twice where no option gives it. */
export async function newCredential(flags: KeyFlags): Promise<Credential> {
  const given = await credentialsOf({ ...flags, askPassphrase: false });
  if (given.length > 1) throw new UsageError('give one key or passphrase; veneer key add adds others');
  const [only] = given;
  if (only !== undefined) return only;
  if (flags.askPassphrase !== true && !canAsk())
    throw new UsageError('a key is needed: --key-file, --key-fd, --passphrase-file, --passphrase-fd or a terminal');
  const first = await askPassphrase('new passphrase: ');
  const second = await askPassphrase('the same again: ');
  if (!Buffer.from(first.secret).equals(second.secret))
    throw new UsageError('the two passphrases differ; nothing was done');
  return first;
}

/** Asks at the terminal. */
export async function askPassphrase(question: string): Promise<Credential> {
  return credentialFromBytes('passphrase', Buffer.from(await askHidden(question)), 'terminal');
}

function isSealed(imagePath: string): boolean {
  using image = closing(Image.open(imagePath));
  return image.value.description.sealed;
}
