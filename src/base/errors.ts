/**
 * The one family of errors. Every error that a user may meet says what failed, where, and what to do about it, in one line.
 *
 * `code` is stable and machine-readable; `mount/` alone maps codes to errno. Anything that is not a VeneerError is a bug of ours.
 */
import { printable } from './printable.ts';

export const errorCodes = [
  'FORMAT',
  'INTEGRITY',
  'UNAVAILABLE',
  'CAPACITY',
  'TOO_LARGE',
  'UNSUPPORTED',
  'USAGE',
  'READ_ONLY',
  'FORBIDDEN',
  'SEVERAL_NAMES',
  'BUSY',
  'ASSERTION',
] as const;
export type ErrorCode = (typeof errorCodes)[number];

export type ErrorData = Readonly<Record<string, string | number | bigint | boolean | undefined>>;

export class VeneerError extends Error {
  readonly code: ErrorCode;
  readonly data: ErrorData;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; data?: ErrorData } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.data = options.data ?? {};
  }
}

/** A structure on disk breaks its own specification: a wrong magic, a version, a field out of bounds. */
export class FormatError extends VeneerError {
  constructor(structure: string, field: string, offset: number, detail: string, options: { cause?: unknown } = {}) {
    super('FORMAT', `${structure}: ${field} at byte ${offset}: ${detail}`, {
      ...options,
      data: { structure, field, offset },
    });
  }
}

/** Stored bytes do not match the checksum that was kept of them. */
export class IntegrityError extends VeneerError {
  constructor(what: string, expected: number | string, actual: number | string) {
    super('INTEGRITY', `${what}: checksum is ${hex(actual)}, expected ${hex(expected)}`, { data: { what } });
  }
}

/** What is needed is not there at the moment: a missing file, a failed read, a file that changed under us. */
export class UnavailableError extends VeneerError {
  constructor(message: string, options: { cause?: unknown; retryable?: boolean } = {}) {
    super('UNAVAILABLE', message, {
      ...(options.cause === undefined ? {} : { cause: options.cause }),
      data: { retryable: options.retryable ?? false },
    });
  }
}

/** A limit would be passed: a format's maximum, a full disk, one of our own named limits. */
export class CapacityError extends VeneerError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super('CAPACITY', message, options);
  }
}

/** A file would become longer than it may be, however much room there is. */
export class TooLargeError extends VeneerError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super('TOO_LARGE', message, options);
  }
}

/** Well-formed, but something that this version does not do. */
export class UnsupportedError extends VeneerError {
  constructor(message: string) {
    super('UNSUPPORTED', message);
  }
}

/** The request itself is wrong: an argument, a combination of options, a path. */
export class UsageError extends VeneerError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super('USAGE', message, options);
  }
}

/** A write to what must not change. */
export class ReadOnlyError extends VeneerError {
  constructor(message: string) {
    super('READ_ONLY', message);
  }
}

/** A rule of safety forbids it: a plugin file that points outside its folder. */
export class ForbiddenError extends VeneerError {
  constructor(message: string) {
    super('FORBIDDEN', message);
  }
}

/** A file that may have one name only has several. */
export class SeveralNamesError extends VeneerError {
  constructor(message: string) {
    super('SEVERAL_NAMES', message);
  }
}

/** Somebody else has it at the moment. */
export class BusyError extends VeneerError {
  constructor(message: string) {
    super('BUSY', message);
  }
}

/** Our own invariant is broken: no byte may be returned after it. */
export class AssertionError extends VeneerError {
  constructor(message: string) {
    super('ASSERTION', `internal error: ${message}; please report it`);
  }
}

/** Throws AssertionError when an invariant of ours does not hold. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** The errno name of a failed system call (`ENOSPC`, `EIO`), where the error is one. */
export function systemErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('syscall' in error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/**
 * Whether something failed since this process has no more files or memory, and not by what it was done to: nothing follows from it about a
 * file. Whoever makes something of failures lets these go on to who asked.
 */
export function isShortage(error: unknown): boolean {
  if (['EMFILE', 'ENFILE', 'ENOMEM'].includes(systemErrorCode(error) ?? '')) return true;
  return error instanceof Error && error.cause !== undefined && isShortage(error.cause);
}

/** What another program has said, without its line breaks. */
export function inOneLine(text: string): string {
  return text.trim().replaceAll(/\s*\n\s*/g, ' ');
}

/**
 * One line for a person: the message, with its causes' messages behind it where they add something. Names in it may hold anything, and are
 * shown as text (printable.ts).
 */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  const seen = new Set<unknown>();
  for (let current = error; current !== undefined && parts.length < 5 && !seen.has(current);) {
    seen.add(current);
    const text = textOf(current);
    if (!parts.some((part) => part.includes(text))) parts.push(text);
    current = current instanceof Error ? current.cause : undefined;
  }
  return printable(parts.join(': '));
}

function textOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  return typeof error === 'string' ? error : JSON.stringify(error);
}

function hex(value: number | string): string {
  return typeof value === 'number' ? `0x${value.toString(16).padStart(8, '0')}` : value;
}
