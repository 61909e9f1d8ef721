/** Who serves the disk's bytes as a file, and how each is started, found and stopped. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { BenchContext } from './context.ts';
import { ewfDisk, mountFolder, qcow2Disk, rawDisk, type imageCodecs } from './data.ts';
import type { FioTarget } from './fio.ts';
import { isMounted, unmountAll } from './mounts.ts';
import { pidOf, run, startServer, veneerMain, waitUntil, type Server } from './processes.ts';

export interface Contender {
  readonly name: string;
  readonly stores: 'compressed' | 'uncompressed';
  readonly isOurs: boolean;
  /** What one needs to know to judge the numbers. */
  readonly settings: string;
  /** @param nodeFlags for our own servers, for profiles */
  start(nodeFlags?: readonly string[]): Promise<Served>;
}

/** A running server. Disposing ends it and its mount. */
export interface Served extends AsyncDisposable {
  /** The guest's bytes, all of them: the file and where in it they lie. */
  readonly target: FioTarget;
  /** Of the one process that serves. */
  readonly pid: number;
  /** The stored file that it reads. */
  readonly backing: string;
  /** What the process wrote, to find out why it failed. */
  readonly output: () => string;
}

type MountFlags = readonly string[];

/** Every contender that can be measured here, ours first. Makes the data that they need. */
export async function contenders(context: BenchContext): Promise<Contender[]> {
  const raw = await rawDisk(context);
  const ours: Contender[] = [];
  for (const codec of ['zstd', 'none'] as const) {
    for (const transport of context.transports) {
      ours.push(await veneer(context, raw, codec, transport, []));
    }
  }
  const [best] = context.transports;
  if (best !== undefined) ours.push(await veneer(context, raw, 'zstd', best, ['--cache', '16M']));
  return [
    ...ours,
    ...(hasCommand('qemu-storage-daemon')
      ? [await storageDaemon(context, true), await storageDaemon(context, false)]
      : []),
    ...(hasCommand('xmount') && hasCommand('ewfacquirestream')
      ? [
          xmount(context, 'compressed', 'ewf', await ewfDisk(context), 'E01, deflate, chunks of 32 KiB, libewf'),
          xmount(context, 'uncompressed', 'raw', raw, 'the raw file itself'),
        ]
      : []),
  ];
}

/** The transports that this build of `veneer mount` offers, the default's own choice first. */
export function transportsOffered(): string[] {
  const help = execFileSync(process.execPath, [veneerMain, 'mount', '--help'], { encoding: 'utf8' });
  const choices = /--transport <[^>]*>[^(]*\(choices:([^)]*)\)/.exec(help)?.[1]?.match(/[a-z-]+/g);
  return choices?.filter((name) => name !== 'auto' && name !== 'default') ?? ['fuse-native'];
}

/** Mounts a folder with a plugin file; `served.target.file` is the disk file under the mount. */
export async function veneer(
  context: BenchContext,
  raw: string,
  codec: (typeof imageCodecs)[number],
  transport: string,
  flags: MountFlags,
): Promise<Contender> {
  const made = await mountFolder(context, raw, codec);
  const choice = transportsOffered().length > 1 ? ['--transport', transport] : [];
  const name = ['veneer', transport, codec, ...flags].join(' ');
  return {
    name,
    stores: codec === 'none' ? 'uncompressed' : 'compressed',
    isOurs: true,
    settings: `fixed VHDX of an image, ${codec === 'none' ? 'not compressed' : codec}, blocks of 64 KiB`,
    async start(nodeFlags = []) {
      const mountpoint = emptyFolder(context, name);
      const args = [...nodeFlags, veneerMain, 'mount', made.folder, mountpoint, '--foreground', ...choice, ...flags];
      const server = startServer(process.execPath, args);
      await ready(context, server, () => server.output().includes('is mounted at'));
      return {
        target: {
          file: path.join(mountpoint, made.pluginName),
          offsetBytes: made.payloadOffsetBytes,
          sizeBytes: fs.statSync(raw).size,
        },
        pid: server.pid,
        backing: path.join(made.folder, made.imageName),
        output: server.output,
        async [Symbol.asyncDispose]() {
          await server.stop();
          await unmountAll(path.dirname(mountpoint));
        },
      };
    },
  };
}

async function storageDaemon(context: BenchContext, compressed: boolean): Promise<Contender> {
  const disk = await qcow2Disk(context, compressed);
  const name = `qemu-storage-daemon ${compressed ? 'zstd' : 'plain'} qcow2`;
  return {
    name,
    stores: compressed ? 'compressed' : 'uncompressed',
    isOurs: false,
    settings: 'clusters of 64 KiB; FUSE export',
    async start() {
      const file = path.join(emptyFolder(context, name), 'disk.raw');
      fs.writeFileSync(file, '');
      const quoted = disk.replaceAll(',', ',,');
      const server = startServer('qemu-storage-daemon', [
        ...['--blockdev', `driver=qcow2,node-name=disk,read-only=on,file.driver=file,file.filename=${quoted}`],
        ...['--export', `type=fuse,id=export,node-name=disk,mountpoint=${file.replaceAll(',', ',,')},writable=off`],
      ]);
      await ready(context, server, () => isMounted(file));
      return {
        target: { file, offsetBytes: 0, sizeBytes: fs.statSync(file).size },
        pid: server.pid,
        backing: disk,
        output: server.output,
        async [Symbol.asyncDispose]() {
          await server.stop();
          await unmountAll(path.dirname(file));
        },
      };
    },
  };
}

function xmount(
  context: BenchContext,
  stores: Contender['stores'],
  input: 'ewf' | 'raw',
  disk: string,
  settings: string,
): Contender {
  const name = `xmount ${input === 'ewf' ? 'E01' : 'raw'}`;
  return {
    name,
    stores,
    isOurs: false,
    settings,
    async start() {
      const mountpoint = emptyFolder(context, name);
      const args = ['--in', input, disk, '--out', 'raw', mountpoint];
      // It goes to the background by itself.
      await run('xmount', args, context.signal);
      const unmount = (): Promise<void> => unmountAll(path.dirname(mountpoint));
      const pid = pidOf(['xmount', ...args]);
      const served = fs.readdirSync(mountpoint).find((entry) => !entry.endsWith('.info'));
      if (pid === undefined || served === undefined) {
        await unmount();
        throw new Error('xmount does not serve');
      }
      const file = path.join(mountpoint, served);
      return {
        target: { file, offsetBytes: 0, sizeBytes: fs.statSync(file).size },
        pid,
        backing: disk,
        output: () => '',
        [Symbol.asyncDispose]: unmount,
      };
    },
  };
}

/** Waits until a server serves; ends it when it does not. */
export async function ready({ signal }: BenchContext, server: Server, isReady: () => boolean): Promise<void> {
  const whyNot = (): string | undefined => (server.hasEnded() ? `the server ended: ${server.output()}` : undefined);
  try {
    await waitUntil(isReady, whyNot, signal);
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** mnt/NAME/at of the benchmark's folder: what is mounted below mnt/NAME is this contender's. */
export function emptyFolder({ folder }: BenchContext, name: string): string {
  const made = path.join(folder, 'mnt', name.replaceAll(/[^\w-]+/g, '-'), 'at');
  fs.rmSync(made, { recursive: true, force: true });
  fs.mkdirSync(made, { recursive: true });
  return made;
}

export function hasCommand(name: string): boolean {
  return (process.env['PATH'] ?? '').split(path.delimiter).some((folder) => fs.existsSync(path.join(folder, name)));
}
