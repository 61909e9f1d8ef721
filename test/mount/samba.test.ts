/** Through Samba: the same bytes, not reported sparse, open for writing, and with the byte-range locks that Samba needs below it. */
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { createPluginFile } from '../../src/plugin/create.ts';
import { run, runOk } from '../cli/veneer.ts';
import { writeGuest } from './guest-disk.ts';
import { eventually, placeForTest } from './mounted.ts';

/** FILE_ATTRIBUTE_SPARSE_FILE, as smbclient's allinfo writes it. */
const sparseAttribute = /attributes:.*\bS\b|sparse/i;

async function freePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        typeof address === 'object' && address !== null ? resolve(address.port) : reject(new Error('no port')),
      );
    });
  });
}

interface Share {
  readonly port: number;
  /** Runs commands of smbclient; returns what it printed. */
  readonly client: (commands: string) => Promise<string>;
}

/** A Samba server of its own for one folder, on loopback. */
async function share(folder: string, state: string): Promise<Share> {
  const port = await freePort();
  for (const name of ['private', 'state', 'cache', 'lock', 'pid', 'ncalrpc'])
    fs.mkdirSync(path.join(state, name), { recursive: true });
  const config = path.join(state, 'smb.conf');
  fs.writeFileSync(
    config,
    [
      '[global]',
      `smb ports = ${port}`,
      'interfaces = 127.0.0.1',
      'bind interfaces only = yes',
      'server role = standalone server',
      'map to guest = bad user',
      'guest account = root',
      'disable netbios = yes',
      'load printers = no',
      `private dir = ${state}/private`,
      `state directory = ${state}/state`,
      `cache directory = ${state}/cache`,
      `lock directory = ${state}/lock`,
      `pid directory = ${state}/pid`,
      `ncalrpc dir = ${state}/ncalrpc`,
      `log file = ${state}/log`,
      '[disks]',
      `path = ${folder}`,
      'guest ok = yes',
      'read only = no',
      'force user = root',
      'strict allocate = no',
      'store dos attributes = no',
      'oplocks = no',
      '',
    ].join('\n'),
  );
  const server: ChildProcess = spawn('smbd', ['--foreground', '--no-process-group', `--configfile=${config}`], {
    stdio: 'ignore',
    detached: true,
  });
  onTestFinished(() => {
    if (server.pid !== undefined) process.kill(-server.pid, 'SIGKILL');
  });
  const client = async (commands: string): Promise<string> =>
    await runOk('smbclient', ['//127.0.0.1/disks', '-p', String(port), '-N', '-m', 'SMB3', '-c', commands], state);
  await eventually(async () => await client('ls'), 30_000);
  return { port, client };
}

it('a VHDX and a VHD read identically over SMB3, are not sparse there, and are written; byte ranges can be locked', async (context) => {
  if ((await run('smbd', ['--version'])).status !== 0) return context.skip('Samba (smbd, smbclient) is not installed');
  const place = placeForTest();
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  createPluginFile(place.behind('vm.spi'), place.behind('vm.vhd'));
  await place.mount();
  const state = place.temporary.file('samba');
  fs.mkdirSync(state);
  const { client } = await share(place.mountpoint, state);
  for (const name of ['vm.vhdx', 'vm.vhd']) {
    const copy = path.join(state, `copy of ${name}`);
    await client(`get ${name} "${copy}"`);
    await runOk('cmp', [place.under(name), copy]);
    const info = await client(`allinfo ${name}`);
    expect(info).toContain('attributes:');
    expect(info).not.toMatch(sparseAttribute);
  }
  // A whole new VHD over the old one, and what is kept of it.
  const changed = path.join(state, 'copy of vm.vhd');
  await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 0x5a 3M 70000', changed]);
  await client(`put "${changed}" vm.vhd`);
  await runOk('cmp', [changed, place.under('vm.vhd')]);
  expect(fs.existsSync(place.behind('vm.vhd.replacement'))).toBe(true);
  // Samba takes the locks of its clients on the file under the mount, of which smbclient can ask for none.
  const script = [
    'import fcntl, os, sys',
    'one, other = (os.open(sys.argv[1], os.O_RDWR) for _ in range(2))',
    'F_OFD_SETLK = 37',
    'import struct',
    'lock = lambda start: struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, 4096, 0)',
    'fcntl.fcntl(one, F_OFD_SETLK, lock(0))',
    'fcntl.fcntl(other, F_OFD_SETLK, lock(8192))',
    'try:',
    '    fcntl.fcntl(other, F_OFD_SETLK, lock(0))',
    '    sys.exit("two have the same lock")',
    'except BlockingIOError:',
    '    pass',
    'os.pwrite(one, b"x" * 4096, 6 << 20)',
    'os.fsync(one)',
    'assert os.pread(other, 4096, 6 << 20) == b"x" * 4096',
  ].join('\n');
  await runOk('python3', ['-c', script, place.under('vm.vhdx')]);
  const local = path.join(state, 'local');
  fs.writeFileSync(local, Buffer.alloc(200_000, 0x42));
  await client(`put "${local}" notes.bin`);
  expect(fs.readFileSync(place.behind('notes.bin')).equals(fs.readFileSync(local))).toBe(true);
});
