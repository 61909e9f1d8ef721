/** Locks of byte ranges through a mount are those of the files behind: an ordinary folder is the judge. */
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, it, onTestFinished } from 'vitest';
import { MiB } from '../../../../src/base/units.ts';
import { createImage } from '../../../../src/backup/write/create.ts';
import { createPluginFile } from '../../../../src/plugin/create.ts';
import { run, runOk, veneerOk } from '../../../cli/veneer.ts';
import { seededTest, soak } from '../../../seeded.ts';
import { eventually, placeForTest, type MountPlace } from '../../mounted.ts';

const steps = soak ? 20_000 : 300;
const timeoutMs = soak ? 3_600_000 : 240_000;
const script = path.join(import.meta.dirname, 'locks_model.py');

/** @param pauses steps before which something is done */
async function model(
  folder: string,
  names: readonly string[],
  seed: string,
  pauses: ReadonlyArray<readonly [number, () => Promise<unknown>]> = [],
): Promise<unknown[]> {
  const numbers = JSON.stringify(pauses.map(([step]) => step));
  const child = spawn('/usr/bin/python3', [script, folder, JSON.stringify(names), seed, String(steps), numbers]);
  onTestFinished(() => void child.kill('SIGKILL'));
  let complaints = '';
  child.stderr.on('data', (data: Buffer) => (complaints += data.toString()));
  let last = '';
  for await (const line of createInterface(child.stdout)) {
    const pause = /^pause (\d+)$/.exec(line)?.[1];
    if (pause === undefined) {
      last = line;
      continue;
    }
    await pauses[Number(pause)]?.[1]();
    child.stdin.write('\n');
  }
  expect(complaints).toBe('');
  return JSON.parse(last) as unknown[];
}

function expectSameOutcomes(found: readonly unknown[], judged: readonly unknown[]): void {
  expect(found.length).toBe(judged.length);
  for (const [step, outcome] of judged.entries()) expect(found[step], `step ${step}`).toEqual(outcome);
}

const holder = `
import fcntl, os, struct, sys
how, name, kind = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
fd = os.open(name, os.O_RDWR)
print('asks', flush=True)
fcntl.fcntl(fd, how, struct.pack('@hhqqi4x', kind, 0, 0, 10, 0))
print('held', flush=True)
sys.stdin.readline()
`;
const setLock = 37;
const setLockWaiting = 38;
const read = 0;
const write = 1;

/** A program that locks, says so, and has the lock until it is killed or its input ends. */
function lockIn(file: string, how: number, kind = write): { child: ChildProcess; said: () => string } {
  const child = spawn('/usr/bin/python3', ['-c', holder, String(how), file, String(kind)]);
  onTestFinished(() => void child.kill('SIGKILL'));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (said += data.toString()));
  return { child, said: () => said };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await new Promise((resolve) => child.once('exit', resolve));
}

async function expectSaid({ said }: { said: () => string }, what: RegExp): Promise<void> {
  await eventually(() => expect(said()).toMatch(what), 30_000);
}

async function nativeDisk(place: MountPlace): Promise<void> {
  const random = seededTest('a locked disk');
  await createImage(place.temporary.write('disk.raw', random.bytes(4 * MiB)), place.behind('vm.spf'));
  createPluginFile(place.behind('vm.spf'), place.behind('vm.raw'));
}

async function complete(place: MountPlace): Promise<void> {
  await eventually(
    async () => expect(await veneerOk('fill', 'status', place.under('vm.raw'))).toContain('complete'),
    60_000,
  );
}

async function mounted(place: MountPlace): Promise<void> {
  await place.mount('--transport', 'kernel');
}

describe('locks of byte ranges', () => {
  it.for(['first', 'second'])(
    'come out as on the folder itself, step by step (%s)',
    { timeout: timeoutMs },
    async (name) => {
      const random = seededTest(`locks ${name}`);
      const place = placeForTest();
      const plain = place.temporary.file('plain');
      fs.mkdirSync(plain);
      for (const file of ['a', 'b'])
        for (const folder of [plain, place.folder]) fs.writeFileSync(path.join(folder, file), '');
      await mounted(place);
      const judged = await model(plain, ['a', 'b'], random.seed);
      expectSameOutcomes(await model(place.mountpoint, ['a', 'b'], random.seed), judged);
    },
  );

  it(
    'of a native file do so, while it is written for the first time, filled, and finalized',
    { timeout: timeoutMs },
    async () => {
      const random = seededTest('locks of a native file');
      const place = placeForTest();
      await nativeDisk(place);
      const plain = place.temporary.file('plain');
      fs.mkdirSync(plain);
      fs.writeFileSync(path.join(plain, 'vm.raw'), '');
      await mounted(place);
      const at = (quarters: number): number => Math.floor((steps * quarters) / 4);
      const judged = await model(plain, ['vm.raw'], random.seed);
      const found = await model(place.mountpoint, ['vm.raw'], random.seed, [
        [
          at(1),
          () => runOk('dd', ['if=/dev/zero', `of=${place.under('vm.raw')}`, 'bs=64k', 'count=1', 'conv=notrunc']),
        ],
        [
          at(2),
          async () => {
            await veneerOk('fill', 'start', place.under('vm.raw'));
            await complete(place);
          },
        ],
        [at(3), () => veneerOk('finalize', place.under('vm.raw'))],
      ]);
      expectSameOutcomes(found, judged);
    },
  );

  it('meet those of programs that have the file behind open, both ways', { timeout: timeoutMs }, async () => {
    const place = placeForTest();
    fs.writeFileSync(place.behind('file'), '');
    await mounted(place);
    for (const [first, second] of [
      [place.under('file'), place.behind('file')],
      [place.behind('file'), place.under('file')],
    ] as const) {
      const one = lockIn(first, setLock);
      await expectSaid(one, /held/);
      const refused = lockIn(second, setLock);
      await expectSaid(refused, /BlockingIOError/);
      one.child.kill('SIGKILL');
      await ended(one.child);
      await eventually(async () => {
        const again = lockIn(second, setLock);
        await expectSaid(again, /held|BlockingIOError/);
        again.child.kill('SIGKILL');
        await ended(again.child);
        expect(again.said()).toContain('held');
      }, 20_000);
    }
  });

  it('are waited for: until who has one lets go, under the mount or behind it', { timeout: timeoutMs }, async () => {
    const place = placeForTest();
    fs.writeFileSync(place.behind('file'), '');
    await mounted(place);
    for (const side of [place.under('file'), place.behind('file')]) {
      const one = lockIn(side, setLock);
      await expectSaid(one, /held/);
      const waiting = [
        lockIn(place.under('file'), setLockWaiting, read),
        lockIn(place.under('file'), setLockWaiting, read),
      ];
      for (const each of waiting) await expectSaid(each, /asks/);
      // Nobody is kept from anything meanwhile, with as many workers as wait.
      for (let round = 0; round < 20; round++) await fs.promises.readdir(place.mountpoint);
      expect(waiting.map(({ said }) => said())).toEqual(['asks\n', 'asks\n']);
      one.child.kill('SIGKILL');
      for (const each of waiting) await expectSaid(each, /held/);
      for (const { child } of waiting) {
        child.kill('SIGKILL');
        await ended(child);
      }
    }
  });

  it(
    'are waited for no longer by who is killed, and end with the process that serves',
    { timeout: timeoutMs },
    async () => {
      const place = placeForTest();
      fs.writeFileSync(place.behind('file'), '');
      await mounted(place);
      const one = lockIn(place.under('file'), setLock);
      await expectSaid(one, /held/);
      const waiting = lockIn(place.under('file'), setLockWaiting);
      await expectSaid(waiting, /asks/);
      waiting.child.kill('SIGKILL');
      await ended(waiting.child);
      expect(waiting.said()).toBe('asks\n');
      await expectSaid(lockIn(place.behind('file'), setLock), /BlockingIOError/);
      await place.kill();
      await expectSaid(lockIn(place.behind('file'), setLock), /held/);
    },
  );

  it(
    "of QEMU's images keep a second writer out before the fill, after the cut-over and after finalize",
    { timeout: timeoutMs },
    async () => {
      const place = placeForTest();
      await nativeDisk(place);
      await mounted(place);
      const machine = ['-display', 'none', '-nodefaults', '-S', '-M', 'pc', '-accel', 'tcg', '-m', '64'];
      const drive = `file=${place.under('vm.raw')},format=raw,if=none,id=disk`;
      const devices = ['-drive', drive, '-device', 'virtio-blk-pci,drive=disk', '-monitor', 'stdio'];
      const guest = spawn('qemu-system-x86_64', [...machine, ...devices]);
      onTestFinished(() => void guest.kill('SIGKILL'));
      let said = '';
      guest.stdout.on('data', (data: Buffer) => (said += data.toString()));
      const write = async (pattern: string, at: string): Promise<void> => {
        said = '';
        guest.stdin.write(`qemu-io disk "write -P ${pattern} ${at} 64k"\n`);
        await eventually(() => expect(said).toMatch(/wrote 65536/), 30_000);
      };
      await write('0x42', '0');
      const second = ['-f', 'raw', '-c', 'write -P 0x43 3M 64k'];
      const expectRefused = async (file: string): Promise<void> =>
        expect((await run('qemu-io', [...second, file])).stderr).toMatch(/Failed to get "write" lock/);
      await expectRefused(place.under('vm.raw'));
      await veneerOk('fill', 'start', place.under('vm.raw'));
      await complete(place);
      await expectRefused(place.under('vm.raw'));
      await veneerOk('finalize', place.under('vm.raw'));
      await expectRefused(place.under('vm.raw'));
      await expectRefused(place.behind('vm.raw'));
      await write('0x44', '1M');
      guest.stdin.write('quit\n');
      await ended(guest);
      await runOk('qemu-io', [...second, place.under('vm.raw')]);
      const check = ['read -P 0x42 0 64k', 'read -P 0x44 1M 64k', 'read -P 0x43 3M 64k'];
      const read = await runOk('qemu-io', [
        '-f',
        'raw',
        ...check.flatMap((each) => ['-c', each]),
        place.behind('vm.raw'),
      ]);
      expect(read).not.toContain('Pattern verification failed');
    },
  );
});
