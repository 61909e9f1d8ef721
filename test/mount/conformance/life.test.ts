/** The life of a mount: it serves when the tool returns, ends when it is told to, and leaves nothing behind, however it ends. */
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import { expect, it, onTestFinished } from 'vitest';
import { createImage } from '../../../src/backup/write/create.ts';
import { run, runOk, veneer, veneerOk, veneerPath, veneerRefuses } from '../../cli/veneer.ts';
import { soak } from '../../seeded.ts';
import { readPart, writeDisk, writeGuest } from '../guest-disk.ts';
import { eventually, placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports, describeTransports, type Transport } from '../transports.ts';

/** Opens a file under the mount and keeps it open until the test ends. */
async function hold(file: string): Promise<fs.promises.FileHandle> {
  const handle = await fs.promises.open(file);
  onTestFinished(async () => await handle.close().catch(() => undefined));
  return handle;
}

/** Nothing is mounted, no process serves, and of the mount's state only the log is left, for whoever asks what happened. */
async function expectGone(place: MountPlace, withinMs = 5000): Promise<void> {
  await eventually(() => {
    expect(place.isMounted).toBe(false);
    expect(place.servers()).toEqual([]);
    expect(place.stateFiles()).toEqual(['log']);
  }, withinMs);
  expect(fs.readdirSync(place.mountpoint)).toEqual([]);
}

function place(): MountPlace {
  const made = placeForTest();
  fs.writeFileSync(made.behind('file'), 'contents');
  return made;
}

/** `veneer mount --foreground`, once it serves. */
async function inForeground(
  transport: Transport,
  made: MountPlace,
  ...options: string[]
): Promise<{ child: ChildProcess; said: () => string }> {
  const args = [veneerPath, 'mount', '--foreground', ...transport.options, ...options, made.folder, made.mountpoint];
  const child = spawn(process.execPath, args);
  let said = '';
  child.stdout.on('data', (data: Buffer) => (said += data.toString()));
  await eventually(() => expect(said).toContain('is mounted at'), 15_000);
  return { child, said: () => said };
}

const ended = async (child: ChildProcess): Promise<number | string | null> =>
  await new Promise((resolve) => child.on('exit', (status, signal) => resolve(signal ?? status)));

describeTransports('the life of a mount', (transport) => {
  it('the tool returns when the mount serves, and says how to end it', async () => {
    const made = place();
    const said = await made.mountByTool(...transport.options);
    expect(await fs.promises.readFile(made.under('file'), 'utf8')).toBe('contents');
    const { pid, transport: name } = await made.status();
    expect(said).toBe(
      `${made.folder} is mounted at ${made.mountpoint} (process ${pid}); unmount with: veneer unmount ${made.mountpoint}\n`,
    );
    expect(name).toBe(transport.name);
    expect(made.servers()).toContain(pid);
    expect(made.stateFiles().sort()).toEqual(['log', 'record', 'socket']);
  });

  it('unmounting ends the process and leaves nothing but the log', async () => {
    const made = place();
    await made.mountByTool(...transport.options);
    expect(await veneerOk('unmount', made.mountpoint)).toBe(`${made.mountpoint} is unmounted\n`);
    expect(made.isMounted).toBe(false);
    expect(made.servers()).toEqual([]);
    expect(made.stateFiles()).toEqual(['log']);
    expect(made.log().map((line) => line.msg)).toEqual(['mounted', 'unmounted']);
  });

  it('the same place is mounted again and again', async () => {
    const made = place();
    for (let count = 0; count < (soak ? 10 : 2); count++) {
      await made.mountByTool(...transport.options);
      expect(await fs.promises.readFile(made.under('file'), 'utf8')).toBe('contents');
      await made.unmountByTool();
    }
    await expectGone(made);
  });

  it('a busy mount is not unmounted, serves on, and goes with --lazy', async () => {
    const made = place();
    await made.mountByTool(...transport.options);
    const handle = await hold(made.under('file'));
    expect(await veneerRefuses('unmount', made.mountpoint)).toMatch(/is busy; close what uses it .*--lazy/);
    expect((await handle.read(Buffer.alloc(8), 0, 8, 0)).buffer.toString()).toBe('contents');
    expect(await fs.promises.readFile(made.under('file'), 'utf8')).toBe('contents');
    await made.unmountByTool('--lazy');
    await expectGone(made);
  });

  it('after kill -9 the dead mount is cleared away by the next one', async () => {
    const made = place();
    await made.mountByTool(...transport.options);
    await made.kill();
    await eventually(() => expect(fs.promises.stat(made.mountpoint)).rejects.toMatchObject({ code: 'ENOTCONN' }));
    expect((await veneer('status')).stdout).not.toContain(made.mountpoint);
    await made.mountByTool(...transport.options);
    expect(await fs.promises.readFile(made.under('file'), 'utf8')).toBe('contents');
    await made.unmountByTool();
    await expectGone(made);
  });

  it('after kill -9 with a file open the next mount serves too', async () => {
    const made = place();
    await made.mountByTool(...transport.options);
    await hold(made.under('file'));
    await made.kill();
    await made.mountByTool(...transport.options);
    expect(await fs.promises.readFile(made.under('file'), 'utf8')).toBe('contents');
  });

  it('after kill -9 the dead mount can be unmounted', async () => {
    const made = place();
    await made.mountByTool(...transport.options);
    await made.kill();
    await made.unmountByTool();
    await expectGone(made);
  });

  it('what a program wrote before kill -9 is in the folder', async () => {
    const made = place();
    await made.mountByTool(...transport.options);
    const file = made.under('written');
    const writer = spawn('/usr/bin/python3', [
      '-u',
      '-c',
      'import os,sys\nf=os.open(sys.argv[1],os.O_CREAT|os.O_WRONLY)\nn=0\nwhile True:\n  os.pwrite(f,b"%4096d"%n,n*4096)\n  n+=1\n  print(n)',
      file,
    ]);
    let acknowledged = 0;
    writer.stdout.on('data', (data: Buffer) => (acknowledged = Number(data.toString().trimEnd().split('\n').at(-1))));
    writer.stderr.resume();
    const exit = ended(writer);
    await eventually(() => expect(acknowledged).toBeGreaterThan(100), 15_000);
    await made.kill();
    await exit;
    const behind = fs.readFileSync(made.behind('written'));
    for (let number = 0; number < acknowledged; number++)
      expect(behind.toString('latin1', number * 4096, (number + 1) * 4096).trim()).toBe(String(number));
  });

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
    '%s unmounts within two seconds, though a file is open',
    async (signal) => {
      const made = place();
      await made.mountByTool(...transport.options);
      await hold(made.under('file'));
      process.kill((await made.status()).pid, signal);
      await expectGone(made, 2000);
    },
  );

  it('the process ends when somebody else unmounts', async () => {
    const made = place();
    await made.mountByTool(...transport.options);
    await runOk('fusermount3', ['-u', made.mountpoint]);
    await expectGone(made);
  });

  it('in the foreground it stays until it is unmounted, and ends well', async () => {
    const made = place();
    const { child, said } = await inForeground(transport, made);
    const exit = ended(child);
    expect(said()).toBe(`${made.folder} is mounted at ${made.mountpoint}\n`);
    await made.unmountByTool();
    expect(await exit).toBe(0);
    await expectGone(made);
  });

  it('Ctrl-C ends it in the foreground', async () => {
    const made = place();
    const { child } = await inForeground(transport, made);
    const exit = ended(child);
    child.kill('SIGINT');
    expect(await exit).toBe(0);
    await expectGone(made);
  });

  it('a mount that cannot be made leaves no process and no state', async () => {
    const made = place();
    fs.writeFileSync(`${made.mountpoint}/in the way`, '');
    const { status } = await veneer('mount', ...transport.options, made.folder, made.mountpoint);
    expect(status).toBe(1);
    await eventually(() => expect(made.servers()).toEqual([]));
    expect(made.stateFiles()).toEqual([]);
  });

  it('a user who is not root is refused by the mount of root, unless the mount allows others', async () => {
    const made = place();
    fs.chmodSync(made.temporary.path, 0o755);
    fs.chmodSync(made.behind('file'), 0o600);
    fs.writeFileSync(made.behind('open to all'), 'open', { mode: 0o644 });
    await made.mountByTool(...transport.options);
    const asNobody = async (file: string): Promise<string> => {
      const { status, stdout, stderr } = await run('setpriv', ['--reuid=65534', '--clear-groups', 'cat', file]);
      return status === 0 ? stdout : stderr;
    };
    expect(await asNobody(made.under('file'))).toContain('Permission denied');
    // fuse-native serves nobody but who mounts.
    if (transport.name === 'kernel') expect(await asNobody(made.under('open to all'))).toBe('open');
    else expect(await asNobody(made.under('open to all'))).toContain('Permission denied');
  });
});

describeAboveTransports('the life of a mount, told to its user,', (transport) => {
  it('relative paths and links to the mountpoint are understood', async () => {
    const made = place();
    const cwd = made.temporary.path;
    fs.symlinkSync('mount', made.temporary.file('link'));
    await runOk(process.execPath, [veneerPath, 'mount', ...transport.options, 'folder', 'link'], cwd);
    expect(await fs.promises.readFile(made.under('file'), 'utf8')).toBe('contents');
    expect(await runOk(process.execPath, [veneerPath, 'status', 'link'], cwd)).toContain(made.mountpoint);
    // The serving process was told of the folder by another name.
    const { pid } = await made.status();
    await runOk(process.execPath, [veneerPath, 'unmount', 'link'], cwd);
    expect(made.isMounted).toBe(false);
    expect(fs.existsSync(`/proc/${pid}/exe`)).toBe(false);
  });

  it('where nothing is mounted there is nothing to unmount', async () => {
    const made = place();
    expect(await veneerRefuses('unmount', made.mountpoint)).toBe(`veneer: ${made.mountpoint}: is not mounted`);
    expect(await veneerRefuses('unmount', made.under('missing'))).toContain('does not exist');
    expect(await veneerRefuses('status', made.mountpoint)).toContain('no veneer mount is there');
  });

  it('what others have mounted is left alone', async () => {
    const made = place();
    await runOk('mount', ['-t', 'tmpfs', 'tmpfs', made.mountpoint]);
    expect(await veneerRefuses('unmount', made.mountpoint)).toContain('was not mounted by veneer');
    expect(made.isMounted).toBe(true);
    expect(await veneerRefuses('mount', ...transport.options, made.folder, made.mountpoint)).toContain(
      'something is mounted there already',
    );
  });

  it('a mountpoint is not mounted twice', async () => {
    const made = place();
    await made.mountByTool(...transport.options);
    expect(await veneerRefuses('mount', ...transport.options, made.folder, made.mountpoint)).toContain(
      'something is mounted there already',
    );
    expect(await fs.promises.readFile(made.under('file'), 'utf8')).toBe('contents');
  });

  it('where images are but no plugin file, it says what to do about it, in the foreground too', async () => {
    const made = place();
    const hint =
      '1 image: make one with veneer plugin create, or mount with --present vhdx to show every image as a disk';
    const raw = made.temporary.file('disk.raw');
    writeDisk(raw, 'hint');
    await createImage(raw, made.behind('vm.spf'));
    expect(await made.mountByTool(...transport.options)).toContain(hint);
    await made.unmountByTool();
    expect(await made.mountByTool(...transport.options, '--present', 'vhdx')).not.toContain('plugin create');
    await made.unmountByTool();
    const { child, said } = await inForeground(transport, made);
    await eventually(() => expect(said()).toContain(hint));
    child.kill('SIGTERM');
    await expectGone(made);
    await veneerOk('plugin', 'create', made.behind('vm.spf'), made.behind('vm.vhdx'));
    expect(await made.mountByTool(...transport.options)).not.toContain('plugin create');
  });

  it('a folder is mounted in one place, and status tells of every mount', async () => {
    const first = placeForTest();
    const second = placeForTest();
    await writeGuest(first.folder, first.temporary.file('disk.raw'));
    await first.mountByTool(...transport.options);
    expect(await veneerRefuses('mount', ...transport.options, first.folder, second.mountpoint)).toContain(
      `is served at ${first.mountpoint} already`,
    );
    await second.mountByTool(...transport.options);
    const mounts = JSON.parse((await veneer('status', '--json')).stdout) as Array<{ mountpoint: string }>;
    expect(mounts.map((mount) => mount.mountpoint)).toEqual(
      expect.arrayContaining([first.mountpoint, second.mountpoint]),
    );
    await first.unmountByTool();
    await veneerOk('unmount', second.mountpoint);
    await veneerOk('mount', ...transport.options, first.folder, second.mountpoint);
    await readPart(second.under('vm.vhdx'), 0, 512);
  });
});
