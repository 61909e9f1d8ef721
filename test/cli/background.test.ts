/** A mount in the background fails as it would in the foreground: with the same error, of the same kind. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { ForbiddenError, UnavailableError, UsageError } from '../../src/base/errors.ts';
import { firstWord, servingIn } from '../../src/cli/background.ts';
import { placeForTest } from '../mount/mounted.ts';
import { run, veneerPath } from './veneer.ts';

function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

it('that it serves is told, with its hint', () => {
  expect(servingIn(firstWord({ pid: 7, hint: 'a hint' }))).toEqual({ pid: 7, hint: 'a hint' });
  expect(servingIn(firstWord({ pid: 7, hint: undefined }))).toEqual({ pid: 7 });
});

it.each([
  [new UnavailableError('no room', { cause: new Error('at all') }), 'UNAVAILABLE', 'no room: at all'],
  [new UsageError('no folder'), 'USAGE', 'no folder'],
  [new ForbiddenError('not yours'), 'FORBIDDEN', 'not yours'],
  [thrownBy(() => fs.readFileSync('/nowhere/at/all')), 'UNAVAILABLE', /ENOENT.*\/nowhere\/at\/all/],
])('%s stays what it is', (error, code, message) => {
  const told = thrownBy(() => servingIn(firstWord({ error })));
  expect(told).toMatchObject({ code });
  expect((told as Error).message).toMatch(message);
  expect((told as Error).stack).toContain('background.test.ts');
});

it('a bug stays one, with the place where it is', () => {
  const told = thrownBy(() => servingIn(firstWord({ error: new TypeError('x is not a function') })));
  expect(told).not.toHaveProperty('code');
  expect((told as Error).message).toBe('x is not a function');
  expect((told as Error).stack).toMatch(/^TypeError: x is not a function\n.*background\.test\.ts/);
});

it('has the same line and status in both, and --debug tells where it failed', async () => {
  const place = placeForTest();
  // More than the hard limit is not given.
  const mount = async (...options: readonly string[]): Promise<Awaited<ReturnType<typeof run>>> =>
    await run('bash', [
      '-c',
      'ulimit -n 128; exec "$@"',
      'bash',
      process.execPath,
      veneerPath,
      ...options,
      place.folder,
      place.mountpoint,
    ]);
  const foreground = await mount('mount', '--foreground');
  expect(foreground.stderr).toMatch(
    /^veneer: this process may open 128 files at once, and a mount needs 256; [^\n]*\n$/,
  );
  expect(await mount('mount')).toEqual(foreground);
  expect(foreground.status).toBe(1);
  const debugged = await mount('--debug', 'mount');
  expect(debugged.stderr.split('\n').slice(0, 2).join('\n')).toContain(`${foreground.stderr}UnavailableError: `);
  expect(debugged.stderr).toMatch(/requireFiles .*serve\.ts/);
});
