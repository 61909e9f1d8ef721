/**
 * The device that a mount is served through: opens /dev/fuse, mounts, and makes further channels of one mount.
 *
 * Root mounts by itself. Other users go through fusermount3, which is set-uid: it opens the device, mounts, and hands the descriptor
 * over a socket.
 */
import { spawn } from 'node:child_process';
import * as fs from '../../base/fs.ts';
import koffi from 'koffi';
import { commandOf } from '../../base/byte-arguments.ts';
import { inOneLine, UnavailableError } from '../../base/errors.ts';
import { mayActAsOthers } from '../../base/identity.ts';
import { zeroTerminated } from '../../base/names.ts';
import type { Log } from '../../base/log.ts';
import { callDevice } from '../../base/system-calls.ts';
import { errorOfErrno } from '../../base/system-error.ts';
import { maxReadBytes } from './protocol.ts';

const fuseDevice = '/dev/fuse';
const MS_NOSUID = 2;
const MS_NODEV = 4;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;
/** _IOR(229, 0, uint32_t) */
const FUSE_DEV_IOC_CLONE = 0x8004e500;
/** struct cmsghdr (16 bytes on 64-bit machines) and one descriptor, padded to 8. */
const controlBytes = 24;
const messageHeaderBytes = 56;

const libc = koffi.load(null);
const mount = libc.func(
  'int mount(const char *source, const uint8_t *target, const char *type, ulong flags, const char *data)',
) as (source: string, target: Uint8Array, type: string, flags: number, data: string) => number;
const socketpair = libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *sockets)') as (
  domain: number,
  type: number,
  protocol: number,
  sockets: Int32Array,
) => number;
const recvmsg = libc.func('int64_t recvmsg(int socket, _Inout_ uint8_t *message, int flags)') as (
  socket: number,
  message: Uint8Array,
  flags: number,
) => number;

/**
 * Mounts at `mountpoint`. The kernel's FUSE_INIT waits on the descriptor then.
 * @throws system errors; UnavailableError with fusermount3's own words
 */
export async function mountDevice(mountpoint: string, log: Log): Promise<number> {
  if (process.getuid?.() !== 0) return await mountAsUser(mountpoint);
  const servesOthers = mayActAsOthers();
  if (!servesOthers)
    log('warn', 'only root may enter the mount: the system does not let it act with the rights of others', {});
  return mountAsRoot(mountpoint, servesOthers);
}

/** A further channel of the same mount: requests go to whichever channel is read first. */
export function cloneChannel(fd: number): number {
  const clone = fs.openSync(fuseDevice, fs.constants.O_RDWR);
  try {
    callDevice(clone, FUSE_DEV_IOC_CLONE, Uint32Array.of(fd), fuseDevice);
    return clone;
  } catch (error) {
    fs.closeSync(clone);
    throw error;
  }
}

/** @param servesOthers whether other users may enter: what they do is done with their rights */
function mountAsRoot(mountpoint: string, servesOthers: boolean): number {
  const fd = fs.openSync(fuseDevice, fs.constants.O_RDWR);
  const options = [
    `fd=${fd}`,
    'rootmode=40000',
    'user_id=0',
    'group_id=0',
    ...(servesOthers ? ['allow_other'] : []),
    'default_permissions',
    `max_read=${maxReadBytes}`,
  ];
  const flags = MS_NOSUID | MS_NODEV;
  if (mount('veneer', zeroTerminated(mountpoint), 'fuse.veneer', flags, options.join(',')) === 0) return fd;
  const errno = koffi.errno();
  fs.closeSync(fd);
  throw errorOfErrno(errno, 'mount', mountpoint);
}

async function mountAsUser(mountpoint: string): Promise<number> {
  const sockets = new Int32Array(2);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) !== 0)
    throw errorOfErrno(koffi.errno(), 'socketpair', 'fusermount3');
  const [ours = -1, theirs = -1] = sockets;
  try {
    const options = `fsname=veneer,subtype=veneer,default_permissions,max_read=${maxReadBytes}`;
    // In the child the socket is descriptor 3.
    await runFusermount(['-o', options, '--', mountpoint], theirs);
    return receiveDescriptor(ours);
  } finally {
    fs.closeSync(ours);
    fs.closeSync(theirs);
  }
}

async function runFusermount(given: readonly string[], socket: number): Promise<void> {
  const { program, args } = commandOf('fusermount3', given);
  const child = spawn(program, args, {
    env: { ...process.env, _FUSE_COMMFD: '3' },
    stdio: ['ignore', 'ignore', 'pipe', socket],
  });
  let said = '';
  child.stderr?.on('data', (data: Buffer) => (said += data.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', (error) =>
      reject(new UnavailableError('fusermount3: cannot be run; install the package fuse3', { cause: error })),
    );
    child.on('close', resolve);
  });
  if (code !== 0)
    throw new UnavailableError(said.trim() === '' ? `fusermount3 ended with code ${code ?? '?'}` : inOneLine(said));
}

/** Receives the one descriptor that fusermount3 has sent. It has ended: nothing is waited for. */
function receiveDescriptor(socket: number): number {
  const byte = new Uint8Array(1);
  const control = new Uint8Array(controlBytes);
  // struct msghdr of a 64-bit machine: name, name length, vector, vector length, control, control length, flags.
  const message = new DataView(new ArrayBuffer(messageHeaderBytes));
  const vector = new DataView(new ArrayBuffer(16));
  vector.setBigUint64(0, addressOf(byte), true);
  vector.setBigUint64(8, BigInt(byte.length), true);
  message.setBigUint64(16, addressOf(new Uint8Array(vector.buffer)), true);
  message.setBigUint64(24, 1n, true);
  message.setBigUint64(32, addressOf(control), true);
  message.setBigUint64(40, BigInt(control.length), true);
  const count = recvmsg(socket, new Uint8Array(message.buffer), MSG_CMSG_CLOEXEC);
  if (count < 0) throw errorOfErrno(koffi.errno(), 'recvmsg', 'fusermount3');
  const header = new DataView(control.buffer);
  if (count === 0 || header.getInt32(8, true) !== SOL_SOCKET || header.getInt32(12, true) !== SCM_RIGHTS)
    throw new UnavailableError('fusermount3 mounted, but handed over no descriptor');
  return header.getInt32(16, true);
}

function addressOf(bytes: Uint8Array): bigint {
  return koffi.address(bytes);
}
