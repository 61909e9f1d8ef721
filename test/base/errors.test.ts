import { describe, expect, it } from 'vitest';
import {
  assert,
  AssertionError,
  CapacityError,
  describeError,
  FormatError,
  inOneLine,
  IntegrityError,
  systemErrorCode,
  UnavailableError,
  UsageError,
  VeneerError,
} from '../../src/base/errors.ts';
import { toOffset } from '../../src/base/ranges.ts';

describe('an error is described in one line', () => {
  it('with the messages of its causes behind its own', () => {
    const root = new Error('ENOSPC: no space left on device, write');
    const error = new CapacityError('disk.spf: no room', { cause: new UsageError('in between', { cause: root }) });
    expect(describeError(error)).toBe('disk.spf: no room: in between: ENOSPC: no space left on device, write');
  });

  it('without a cause that says the same again', () => {
    const error = new CapacityError('disk.spf: it broke', { cause: new Error('it broke') });
    expect(describeError(error)).toBe('disk.spf: it broke');
  });

  it('whatever was thrown', () => {
    expect(describeError('text')).toBe('text');
    expect(describeError(7)).toBe('7');
    expect(describeError(null)).toBe('null');
    expect(describeError(new UsageError('outer', { cause: 'inner' }))).toBe('outer: inner');
  });

  it('with line breaks and whatever else a name may hold as text', () => {
    expect(describeError(new Error('one\n   two\r\nthree\x1b[31m\udce9'))).toBe(
      'one\\n   two\\r\\nthree\\x1b[31m\\xe9',
    );
  });

  it('and what another program said is put into one line first', () => {
    expect(inOneLine('one\n   two\r\nthree\n')).toBe('one two three');
  });

  it('when its causes lead in a circle, or have no end', () => {
    const circle = new Error('one');
    circle.cause = new Error('two', { cause: circle });
    expect(describeError(circle)).toBe('one: two');
    const self = new Error('self');
    self.cause = self;
    expect(describeError(self)).toBe('self');
    let deep = new Error('0');
    for (let depth = 1; depth < 10_000; depth++) deep = new Error(`cause ${depth}`, { cause: deep });
    expect(describeError(deep).split(': ').length).toBeLessThanOrEqual(5);
  });
});

describe('an error of the family', () => {
  it('has its own name, a code, and the data it was made with', () => {
    const error = new FormatError('superblock', 'block size', 68, '7 is no power of two');
    expect(error).toBeInstanceOf(VeneerError);
    expect(error).toMatchObject({
      name: 'FormatError',
      code: 'FORMAT',
      message: 'superblock: block size at byte 68: 7 is no power of two',
      data: { structure: 'superblock', field: 'block size', offset: 68 },
    });
  });

  it('keeps the first failure as its cause', () => {
    const cause = new Error('first');
    expect(new UnavailableError('second', { cause, retryable: true })).toMatchObject({
      cause,
      data: { retryable: true },
    });
    expect(new UnavailableError('second')).not.toHaveProperty('cause');
  });

  it('shows checksums in full', () => {
    expect(new IntegrityError('block 7', 0x1f, 0xffff_ffff).message).toBe(
      'block 7: checksum is 0xffffffff, expected 0x0000001f',
    );
  });
});

it('an assertion that holds does nothing, and one that does not is our bug', () => {
  expect(() => assert(true, 'never')).not.toThrow();
  expect(() => assert(false, 'a list is empty')).toThrow(AssertionError);
  expect(() => assert(false, 'a list is empty')).toThrow(/internal error: a list is empty; please report it/);
});

it('only a failed system call has an errno name', () => {
  expect(systemErrorCode(Object.assign(new Error('x'), { syscall: 'write', code: 'ENOSPC' }))).toBe('ENOSPC');
  expect(systemErrorCode(Object.assign(new Error('x'), { code: 'ERR_OUT_OF_RANGE' }))).toBeUndefined();
  expect(systemErrorCode('ENOSPC')).toBeUndefined();
});

describe('a 64-bit number from a disk', () => {
  const where = { structure: 'header', field: 'offset', offset: 8 };
  it('is narrowed up to its limit', () => {
    for (const value of [0n, 1n, 4096n, 2n ** 53n - 1n])
      expect(toOffset(value, Number.MAX_SAFE_INTEGER, where)).toBe(Number(value));
    expect(toOffset(4096n, 4096, where)).toBe(4096);
  });

  it.each([4097n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 64n - 1n, -1n])('is refused past it: %d', (value) => {
    expect(() => toOffset(value, 4096, where)).toThrow(FormatError);
    expect(() => toOffset(value, 4096, where)).toThrow(/header: offset at byte 8/);
  });
});
