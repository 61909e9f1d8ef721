/** A main thread that fails: the mount ends, and nobody who waits for it hangs. */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { expect, it, onTestFinished } from 'vitest';
import { veneerPath } from '../cli/veneer.ts';
import { covering } from '../covering.ts';
import { eventually, placeForTest } from './mounted.ts';
import { describeTransports } from './transports.ts';

/** Has a process with an open inspector evaluate an expression in its main thread, as a debugger would. */
async function evaluateIn(url: string, expression: string): Promise<void> {
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve);
    socket.addEventListener('error', () => reject(new Error(`${url}: no inspector answers`)));
  });
  const answered = new Promise((resolve) => {
    socket.addEventListener('message', resolve);
    socket.addEventListener('close', resolve);
  });
  socket.send(JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression } }));
  await answered;
  socket.close();
}

const failures: Readonly<Record<string, string>> = {
  'an exception that nobody catches': `setImmediate(() => { throw new Error('provoked by a test'); })`,
  'a promise that fails unheard': `void Promise.reject(new Error('provoked by a test'))`,
};

/** Each over one transport, which is another; a soak has each over each. */
const tried = covering(
  Object.keys(failures).flatMap((failure) => ['kernel', 'fuse-native'].map((name) => ({ failure, name }))),
  ({ failure, name }) => [failure, name],
);

describeTransports('a main thread that fails', (transport) => {
  it.each(tried.filter(({ name }) => name === transport.name))(
    'ends the mount, with files open and callers at work: $failure',
    async ({ failure }) => {
      const expression = failures[failure] ?? '';
      const place = placeForTest();
      fs.writeFileSync(place.behind('file'), 'contents');
      const args = ['--inspect=127.0.0.1:0', veneerPath, 'mount', '--foreground', ...transport.options];
      const child = spawn(process.execPath, [...args, place.folder, place.mountpoint]);
      onTestFinished(() => void child.kill('SIGKILL'));
      let said = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (said += data.toString()));
      const status = new Promise((resolve) => child.on('exit', (code, signal) => resolve(signal ?? code)));
      await eventually(() => expect(said).toContain('is mounted at'), 15_000);
      const [, url] = /Debugger listening on (ws:\S+)/.exec(said) ?? [];
      if (url === undefined) expect.fail(`no inspector: ${said}`);

      const handle = await fs.promises.open(place.under('file'));
      expect((await handle.read(Buffer.alloc(8), 0, 8, 0)).bytesRead).toBe(8);
      let stop = false;
      const calls = (async () => {
        while (!stop) await fs.promises.stat(place.under(`missing ${Math.random()}`)).catch(() => undefined);
      })();
      await evaluateIn(url, expression);
      expect(await status).toBe(1);
      await eventually(() => expect(place.isMounted).toBe(false));
      stop = true;
      await calls;
      await expect(handle.stat()).rejects.toMatchObject({
        code: expect.stringMatching(/ENOTCONN|ECONNABORTED/) as string,
      });
      await handle.close().catch(() => undefined);
      expect(place.complaints().join('\n')).toContain('provoked by a test');
      expect(said).toContain('its main thread has failed: Error: provoked by a test');

      // The next mount finds nothing in its way.
      await place.mount(...transport.options);
      expect(await fs.promises.readFile(place.under('file'), 'utf8')).toBe('contents');
      await place.unmount();
    },
  );
});
