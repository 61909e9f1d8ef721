/** The socket of a mount, spoken to as this version does and as those before it did: one JSON line, one JSON line back. */
import fs from 'node:fs';
import net from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { CapacityError, UsageError, VeneerError } from '../../src/base/errors.ts';
import type { FillStatus } from '../../src/fill/fill-status.ts';
import { askMount, serveControl, type ControlAnswers } from '../../src/mounts/control.ts';
import type { MountStatus } from '../../src/mounts/mount-status.ts';
import { TempFolder } from '../temp-folder.ts';

const filled: FillStatus = {
  name: 'vm.vhdx',
  state: 'filling',
  activity: 'copy',
  sizeBytes: 1,
  presentBytes: 0,
  writtenBytes: 0,
  dataBytes: 1,
  hotBytes: 0,
  coldBytes: 0,
  verifiedBytes: 0,
  repairedBytes: 0,
  isYielding: false,
  bytesPerSecond: 0,
  secondsLeft: undefined,
  note: '',
};

const status: MountStatus = {
  pid: 1,
  folder: '/images',
  mountpoint: '/disks',
  transport: 'kernel',
  startedAt: '2026-01-01T00:00:00.000Z',
  cacheBudgetBytes: 0,
  residentBytes: 0,
  log: '/log',
  files: [],
};

/** Remembers what it was asked. */
class Answers {
  readonly asked: unknown[] = [];
  readonly #note = (ask: unknown): Promise<FillStatus[]> => {
    this.asked.push(ask);
    return Promise.resolve([filled]);
  };
  readonly answers: ControlAnswers = {
    status: () => status,
    stop: () => ({}),
    'fill.start': this.#note,
    'fill.pause': this.#note,
    'fill.resume': this.#note,
    'fill.cancel': () => Promise.reject(new UsageError('no fill of it was started')),
    'fill.status': this.#note,
    'fill.verify': () => Promise.reject(new TypeError('a bug')),
    'fill.finalize': () => Promise.resolve({ record: 'vm.vhdx.finalized', decrypted: [] }),
  };
}

function socketForTest(): string {
  const folder = new TempFolder();
  onTestFinished(() => folder.remove());
  return folder.file('sock');
}

async function served(answers: ControlAnswers): Promise<string> {
  const socket = socketForTest();
  const server = serveControl(socket, answers);
  await new Promise((resolve) => server.on('listening', resolve));
  onTestFinished(() => void server.close());
  return socket;
}

/** A mount of another version: whatever it is asked, it answers with this. */
async function answering(text: string): Promise<{ socket: string; asked: () => string }> {
  const socket = socketForTest();
  let asked = '';
  const server = net.createServer((connection) =>
    connection.on('data', (data) => {
      asked += data.toString();
      if (asked.endsWith('\n')) connection.end(text);
    }),
  );
  server.listen(socket);
  await new Promise((resolve) => server.on('listening', resolve));
  onTestFinished(() => void server.close());
  return { socket, asked: () => asked };
}

/** One line to the socket, as any program may send it. */
async function exchange(socket: string, line: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    let text = '';
    const connection = net.connect(socket);
    connection.on('error', reject).on('close', () => resolve(text));
    connection.on('data', (data) => (text += data.toString()));
    connection.write(`${line}\n`);
  });
}

it('what is asked arrives, and what is answered comes back', async () => {
  const made = new Answers();
  const socket = await served(made.answers);
  expect(await askMount(socket, 'status', {})).toEqual(status);
  expect(await askMount(socket, 'stop', {})).toEqual({});
  const ask = { file: 'a/vm.vhdx', isPolite: false, bytesPerSecond: 7 };
  expect(await askMount(socket, 'fill.start', ask)).toEqual([filled]);
  expect(made.asked).toEqual([ask]);
  expect(await askMount(socket, 'fill.finalize', { file: 'vm.vhdx', decrypts: true })).toEqual({
    record: 'vm.vhdx.finalized',
    decrypted: [],
  });
});

it('commands of the version before are answered', async () => {
  const made = new Answers();
  const socket = await served(made.answers);
  expect(JSON.parse(await exchange(socket, '{"command":"status"}'))).toEqual(status);
  const line = '{"isPolite":true,"isVerified":true,"command":"fill","action":"resume","file":"vm.vhdx"}';
  expect(JSON.parse(await exchange(socket, line))).toEqual(JSON.parse(JSON.stringify([filled])));
  expect(made.asked).toEqual([{ file: 'vm.vhdx', isPolite: true, isVerified: true }]);
});

it('a mount of the version before is asked as it was by its own commands', async () => {
  const mount = await answering(`${JSON.stringify([filled])}\n`);
  await askMount(mount.socket, 'fill.pause', { file: 'vm.vhdx' });
  expect(JSON.parse(mount.asked())).toEqual({ command: 'fill', action: 'pause', file: 'vm.vhdx' });
});

it.each([
  '{"command":"explode"}',
  '{"command":"toString"}',
  '{"command":"fill"}',
  '{"command":"fill","action":"start"}',
  '{"command":"fill","action":"start","file":"x","bytesPerSecond":-1}',
  '{"command":["status"]}',
  'null',
  '',
])('%s is answered with nothing', async (line) => {
  const made = new Answers();
  expect(await exchange(await served(made.answers), line)).toBe('');
  expect(made.asked).toEqual([]);
});

it('an error comes back as what it was: of ours, of the system, and a bug', async () => {
  const socket = await served({
    ...new Answers().answers,
    'fill.start': () => Promise.reject(new CapacityError('the disk is full', { cause: new Error('ENOSPC') })),
    'fill.status': async ({ file }) => {
      await fs.promises.stat(`/nowhere/${file}`);
      return [];
    },
  });
  const ask = { file: 'vm.vhdx' };
  const failures = await Promise.allSettled([
    askMount(socket, 'fill.start', ask),
    askMount(socket, 'fill.cancel', ask),
    askMount(socket, 'fill.status', ask),
    askMount(socket, 'fill.verify', ask),
  ]);
  const reasons = failures.map((one) => (one.status === 'rejected' ? (one.reason as unknown) : undefined));
  expect(reasons.map((reason) => (reason instanceof VeneerError ? reason.code : 'none of ours'))).toEqual([
    'CAPACITY',
    'USAGE',
    'UNAVAILABLE',
    'none of ours',
  ]);
  expect(reasons.map((reason) => (reason as Error).message)).toEqual([
    'the disk is full: ENOSPC',
    'no fill of it was started',
    expect.stringMatching(/^ENOENT: .*\/nowhere\/vm\.vhdx'$/),
    'a bug',
  ]);
  expect((reasons[3] as Error).stack).toMatch(/^TypeError: a bug\n.*control\.test\.ts/);
});

it('an error that only a later version knows is still told', async () => {
  const { socket } = await answering('{"failure":{"code":"OUT_OF_TUNE","message":"out of tune"}}\n');
  await expect(askMount(socket, 'status', {})).rejects.toMatchObject({ code: 'UNAVAILABLE', message: 'out of tune' });
});

it.each([
  ['no object', '7', /\(status, : .*\)/],
  ['a field that is missing', JSON.stringify({ ...status, log: undefined }), /\(status, log: /],
  [
    'a state that it does not know',
    JSON.stringify({ ...status, fills: [{ ...filled, state: 'dreaming' }] }),
    /\(status, fills\.0\.state: /,
  ],
])('an answer that does not fit is told as such: %s', async (_what, text, says) => {
  const { socket } = await answering(`${text}\n`);
  const failure = await askMount(socket, 'status', {}).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: 'UNAVAILABLE' });
  expect(String(failure)).toMatch(says);
  expect(String(failure)).toContain('unmount, and mount again with this version');
});

it('what a later version tells besides is left out', async () => {
  const { socket } = await answering(`${JSON.stringify({ ...status, mood: 'fine' })}\n`);
  expect(await askMount(socket, 'status', {})).toEqual(status);
});

it.each(['', '{"pid":1', 'nonsense\n'])('an answer that is cut off is told as such: %j', async (text) => {
  const { socket } = await answering(text);
  await expect(askMount(socket, 'status', {})).rejects.toThrow(/does not answer on .*: its answer is cut off/);
});
