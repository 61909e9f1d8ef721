/** Passphrases and key files, from where a user keeps them: a file with safe permissions, or a descriptor. Never an argument. */
import * as fs from '../../base/fs.ts';
import { UnavailableError, UsageError } from '../../base/errors.ts';
import { maxSecretBytes, minKeyFileBytes, type Credential } from './key-slots.ts';

const groupAndOthers = 0o077;

/**
 * Reads a key file, or a passphrase from a file.
 * @throws UsageError when others than its owner may read it, or it cannot be one; UnavailableError
 */
export function credentialFromFile(kind: Credential['kind'], file: string): Credential {
  let fd: number;
  try {
    fd = fs.openSync(file, 'r');
  } catch (error) {
    const make = kind === 'key file' ? `; make one with: (umask 077; head -c 32 /dev/urandom > ${file})` : '';
    throw new UnavailableError(`${file}: the ${kind} cannot be opened${make}`, { cause: error });
  }
  try {
    const stat = fs.fstatSync(fd);
    if (stat.isFile() && (stat.mode & groupAndOthers) !== 0) {
      const mode = (stat.mode & 0o777).toString(8).padStart(4, '0');
      throw new UsageError(`${file}: others than its owner may use it (mode ${mode}); run: chmod 600 ${file}`);
    }
    return credentialFromFd(kind, fd, file);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Reads a key file or a passphrase to the end of an open descriptor, which stays open.
 * @param name for errors
 */
export function credentialFromFd(kind: Credential['kind'], fd: number, name: string): Credential {
  const secret = new Uint8Array(maxSecretBytes + 1);
  let length = 0;
  try {
    for (let count = -1; count !== 0 && length < secret.length; length += count)
      count = fs.readSync(fd, secret, length, secret.length - length, null);
  } catch (error) {
    throw new UnavailableError(`${name}: the ${kind} cannot be read`, { cause: error });
  }
  if (length > maxSecretBytes)
    throw new UsageError(`${name}: has more than ${maxSecretBytes} bytes, and is no ${kind}`);
  return credentialFromBytes(kind, secret.subarray(0, length), name);
}

/** @throws UsageError when it cannot be one */
export function credentialFromBytes(kind: Credential['kind'], bytes: Uint8Array, name: string): Credential {
  // A line break at the end is an editor's, not the passphrase's.
  const endsInLine = kind === 'passphrase' && bytes.at(-1) === 0x0a;
  const secret = bytes.slice(0, bytes.length - (endsInLine ? 1 : 0));
  if (kind === 'key file' && secret.length < minKeyFileBytes)
    throw new UsageError(`${name}: a key file has at least ${minKeyFileBytes} random bytes; this has ${secret.length}`);
  if (secret.length === 0) throw new UsageError(`${name}: the ${kind} is empty`);
  return { kind, secret };
}
