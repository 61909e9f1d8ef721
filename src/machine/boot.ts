/**
 * Boots the disk of a plugin file in QEMU, and takes everything away again when the guest has powered off, or when it was asked to end:
 *
 * 1. the disk is shown: under a mount of its own, unless it is mounted already
 * 2. QEMU runs in a session of its own; the kernel kills it should this process die
 * 3. the first signal asks the guest to power down; the second, or its silence, ends QEMU
 * 4. QEMU's variables and sockets are removed, then the mount
 */
import { spawn, type ChildProcess } from 'node:child_process';
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { commandOf } from '../base/byte-arguments.ts';
import { systemErrorCode, UnavailableError } from '../base/errors.ts';
import { temporaryFolder } from '../base/given-names.ts';
import { nativePath } from '../base/names.ts';
import { closing } from '../base/ownership.ts';
import { MiB } from '../base/units.ts';
import { BlockCache } from '../backup/read/block-cache.ts';
import { KeyRing, type ThreadKeys } from '../backup/crypto/key-ring.ts';
import type { Firmware } from '../bootable/geometry.ts';
import { gptHeadBytes, hasEfiSystemPartition } from '../bootable/gpt.ts';
import type { Target } from '../guest/plan.ts';
import { mountFiles } from '../mounts/mount-record.ts';
import type { WriteMode } from '../plugin/plugin-file.ts';
import { OpenPlugin } from '../plugin/open-plugin.ts';
import { hasReplacement } from '../plugin/beside.ts';
import { probeAccelerator } from './accelerator.ts';
import { chooseMachine, driveArguments, machineArguments, quoted, type Controller } from './hardware.ts';
import { tellQemu } from './monitor.ts';
import { showDisk, type ShownDisk } from './shown-disk.ts';
import { uefiArguments } from './uefi.ts';

export interface BootOptions {
  /** Undefined: the one that the plugin file's guest was reconfigured for, else qemu. */
  readonly target: Target | undefined;
  readonly firmware: Firmware | undefined;
  readonly controller: Controller | undefined;
  readonly memoryBytes: number;
  readonly processors: number;
  /** The guest's serial port is standard input and output; no screen. */
  readonly serial: boolean;
  readonly write: WriteMode | undefined;
  readonly allowPaths: readonly string[];
  /** Of encrypted images. */
  readonly keys: ThreadKeys;
  /** How long a guest may take to power down when it is asked to. */
  readonly stopWithinMs: number;
  /** Further arguments of QEMU. */
  readonly qemuArguments: readonly string[];
  /** What is worth telling before the guest runs. */
  readonly tell: (line: string) => void;
}

export type BootEnd =
  /** By itself, or because it was asked to. */
  | 'powered off'
  /** It did not power down when it was asked to, or was not given the time. */
  | 'stopped';

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * @returns how the machine ended; nothing is left behind then
 * @throws UsageError, UnavailableError: what cannot be, or what this host lacks; also when QEMU fails
 */
export async function bootMachine(pluginPath: string, options: BootOptions): Promise<BootEnd> {
  // From the first moment: a mount must not be left behind.
  const stopper = new Stopper(options);
  try {
    const shown = await showDisk(pluginPath, options);
    try {
      const home = fs.mkdtempSync(path.join(temporaryFolder(), 'veneer-qemu-'));
      try {
        return await runMachine(shown, home, options, stopper);
      } finally {
        fs.rmSync(home, { recursive: true, force: true });
      }
    } finally {
      await shown.close();
    }
  } finally {
    stopper.release();
  }
}

async function runMachine(shown: ShownDisk, home: string, options: BootOptions, stopper: Stopper): Promise<BootEnd> {
  const { accelerator, reason } = await probeAccelerator();
  const head = await headOf(shown, options);
  const diskFirmware = options.firmware ?? shown.plugin.bootable?.firmware ?? firmwareOf(head);
  const target = options.target ?? shown.plugin.target ?? 'qemu';
  const machine = chooseMachine({ ...options, target, diskFirmware });
  const write = options.write ?? shown.plugin.write ?? 'intercept';
  // What the guest keeps, it keeps with its firmware's variables.
  const variables = write === 'intercept' ? `${shown.pluginPath}.nvram` : path.join(home, 'nvram');
  const socket = path.join(home, 'monitor');
  const { format } = shown.plugin.native;
  const commandLine = [
    'qemu-system-x86_64',
    ...machineArguments({ ...options, accelerator }, machine),
    ...(machine.firmware === 'uefi' ? uefiArguments(variables) : []),
    ...driveArguments({ file: shown.path, format, controller: machine.controller, temporary: write === 'none' }),
    ...['-qmp', `unix:${quoted(socket)},server=on,wait=off`],
    ...consoleArguments(options.serial),
    ...options.qemuArguments,
  ];
  const where = shown.isPrivate ? 'a mount of its own' : `the mount at ${shown.mountpoint}`;
  options.tell(`${shown.path}: ${machine.firmware.toUpperCase()}, ${machine.controller}, from ${where}`);
  options.tell(`writes: ${writeText(write)}; ${accelerator}: ${reason}`);
  if (machine.unlike !== undefined) options.tell(`${target}: ${machine.unlike}`);
  const made = shown.plugin.target;
  if (made !== undefined && made !== target) {
    options.tell(
      `${target}: the guest reads with its patch set for ${made}; veneer reconfigure makes one for ${target}`,
    );
  }
  options.tell(commandLine.join(' '));
  return await run(commandLine, socket, options, stopper);
}

/** By the table of the disk: UEFI where there is an EFI system partition, and nothing for BIOS. */
function firmwareOf(head: Uint8Array): Firmware {
  return hasEfiSystemPartition(head) ? 'uefi' : 'bios';
}

/**
 * The disk's first sectors. What is in the way of reading it (an image or a key that is missing) is told before QEMU runs.
 * @throws what OpenPlugin.openDisk throws; UnavailableError
 */
async function headOf(shown: ShownDisk, options: BootOptions): Promise<Uint8Array> {
  const plugin = openPlugin(shown, options);
  // A mount that there is may have keys that are not here.
  if (!shown.isPrivate) return await headUnderMount(shown, plugin);
  if (!plugin.nativePaths.some(hasReplacement)) return headOfImages(plugin);
  // The images of a disk that was filled may be gone.
  if (shown.plugin.replacement === 'sealed') plugin.sealingKey();
  return await headUnderMount(shown, plugin);
}

function openPlugin({ plugin, pluginPath }: ShownDisk, { allowPaths, keys }: BootOptions): OpenPlugin {
  const allowed = { folders: [path.dirname(pluginPath), ...allowPaths] };
  const cache = BlockCache.ofOneThread(16 * MiB);
  return new OpenPlugin(plugin, pluginPath, { allowed, keys: new KeyRing(keys), cache });
}

function headOfImages(plugin: OpenPlugin): Uint8Array {
  using disk = closing(plugin.openDisk());
  disk.value.requireKeys();
  const head = new Uint8Array(gptHeadBytes);
  disk.value.read(head.subarray(0, disk.value.sizeBytes), 0);
  return head;
}

/** This process may serve the mount, and so must not wait for it. */
async function headUnderMount({ path: shown, mountpoint }: ShownDisk, { files }: OpenPlugin): Promise<Uint8Array> {
  const head = new Uint8Array(gptHeadBytes);
  for (const { name, map } of files) {
    const file = path.join(path.dirname(shown), name);
    for (const { fileOffset, diskOffset, lengthBytes } of map.diskRanges()) {
      const part = head.subarray(diskOffset, diskOffset + lengthBytes);
      try {
        if (part.length > 0) await readAsync(file, part, fileOffset);
      } catch (cause) {
        throw new UnavailableError(`${file}: cannot be read; see ${mountFiles(mountpoint).log}`, { cause });
      }
    }
  }
  return head;
}

async function readAsync(file: string, target: Uint8Array, offset: number): Promise<void> {
  const handle = await fs.promises.open(nativePath(file));
  try {
    const { bytesRead } = await handle.read(target, 0, target.length, offset);
    if (bytesRead < target.length) throw new UnavailableError(`${file}: ends at byte ${offset + bytesRead}`);
  } finally {
    await handle.close();
  }
}

function consoleArguments(serial: boolean): string[] {
  if (serial) return ['-display', 'none', '-chardev', 'stdio,id=serial0,signal=off', '-serial', 'chardev:serial0'];
  return ['-vga', 'std', '-usb', '-device', 'usb-tablet'];
}

function writeText(write: WriteMode): string {
  if (write === 'intercept') return 'kept beside the plugin file';
  return write === 'discard' ? 'thrown away with the mount' : 'thrown away when QEMU ends';
}

async function run(
  commandLine: readonly string[],
  socket: string,
  options: BootOptions,
  stopper: Stopper,
): Promise<BootEnd> {
  if (stopper.endAsked() !== undefined) return 'stopped';
  const { program, args } = commandOf('setpriv', ['--pdeathsig', 'KILL', ...commandLine]);
  const child = spawn(program, args, {
    // A terminal's signals are for this process, which asks the guest first.
    detached: true,
    stdio: [options.serial ? 'inherit' : 'ignore', 'inherit', 'inherit'],
  });
  stopper.attach(child, socket);
  const { status, signal } = await endOf(child);
  const asked = stopper.endAsked();
  if (asked !== undefined) return asked;
  if (status === 0) return 'powered off';
  if (status === 127) {
    throw new UnavailableError('qemu-system-x86_64 is not installed; install the package qemu-system-x86');
  }
  throw new UnavailableError(`QEMU ended with ${signal ?? `status ${status}`}; what it said is above`);
}

async function endOf(child: ChildProcess): Promise<{ status: number | null; signal: NodeJS.Signals | null }> {
  return await new Promise((resolve, reject) => {
    child.on('error', (error) => {
      const isMissing = systemErrorCode(error) === 'ENOENT';
      reject(isMissing ? new UnavailableError('setpriv is not installed; install the package util-linux') : error);
    });
    child.on('exit', (status, signal) => resolve({ status, signal }));
  });
}

/** Ends the machine on signals: the first asks the guest, which may take its time once; the second does not ask. */
class Stopper {
  #end: BootEnd | undefined;
  readonly #options: BootOptions;
  #machine: { readonly child: ChildProcess; readonly socket: string } | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #onSignal = (): void => this.#stop();

  constructor(options: BootOptions) {
    this.#options = options;
    for (const signal of signals) process.on(signal, this.#onSignal);
  }

  /** How it ends, once it was asked to. */
  endAsked(): BootEnd | undefined {
    return this.#end;
  }

  attach(child: ChildProcess, socket: string): void {
    this.#machine = { child, socket };
  }

  release(): void {
    clearTimeout(this.#timer);
    for (const signal of signals) process.off(signal, this.#onSignal);
  }

  #stop(): void {
    if (this.#end !== undefined || this.#machine === undefined) {
      this.#force();
      return;
    }
    this.#end = 'powered off';
    this.#options.tell('asking the guest to power down; a second signal ends it at once');
    this.#timer = setTimeout(() => this.#force(), this.#options.stopWithinMs);
    tellQemu(this.#machine.socket, 'system_powerdown').catch(() => this.#force());
  }

  #force(): void {
    this.#end = 'stopped';
    const machine = this.#machine;
    // QEMU writes out what it holds; one that does not answer is killed.
    if (machine !== undefined) tellQemu(machine.socket, 'quit').catch(() => machine.child.kill('SIGKILL'));
  }
}
