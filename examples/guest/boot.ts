/**
 * Boots a disk file in QEMU and reports what the example guest said on its serial console. The machine has one
 * processor, 512 MiB, the one disk and a serial port. Whatever happens, its process is gone when the promise settles.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { probeAccelerator, type AcceleratorProbe } from '../../src/machine/accelerator.ts';
import { deviceArguments, quoted, type Controller } from '../../src/machine/hardware.ts';

export { probeAccelerator, type AcceleratorProbe };

/** The controller that the guest sees its disk on. */
export type Bus = Controller;

export interface BootOptions {
  /** The disk file. */
  readonly drive: string;
  /** QEMU's name of its format: raw, qcow2, vhdx, vpc, vmdk, vdi. */
  readonly format: string;
  /** A qcow2 file that takes the guest's writes; made on top of `drive` if it does not exist yet. */
  readonly overlay?: string;
  /**
   * Without `overlay`: true (the default) drops the guest's writes at its end, false lets them reach `drive`.
   */
  readonly snapshot?: boolean;
  /** Default virtio-blk. */
  readonly bus?: Bus;
  /** Default bios. */
  readonly firmware?: 'bios' | 'uefi';
  /** A disk that refuses writes; there is no such thing on ide and ahci. */
  readonly readOnly?: boolean;
  /** QEMU's cache mode; its default is writeback. `none` and `directsync` open the file with O_DIRECT. */
  readonly cache?: 'none' | 'writeback' | 'writethrough' | 'directsync' | 'unsafe';
  /** Asks the guest to stay up. The result comes, and the machine is killed, when the guest is ready. */
  readonly hold?: boolean;
  /** Asks the guest to write 4 MiB to its disk, and to sync. */
  readonly write?: boolean;
  /**
   * Asks the guest to write to its disk and to read it back, round after round. Called when the guest is up; the guest stops when the promise
   * settles.
   */
  readonly load?: (guest: LoadedGuest) => Promise<void>;
  /** Default 240 000: TCG on a busy host is slow. */
  readonly timeoutMs?: number;
  /** Kills the machine; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Default: what `probeAccelerator` says. */
  readonly accelerator?: 'kvm' | 'tcg';
}

/** A guest under its load. */
export interface LoadedGuest {
  /** Rounds that it has finished, all of them read back as written. */
  rounds(this: void): number;
}

export interface BootReport {
  /** All times count from the start of QEMU. */
  readonly firstOutputAfterMs: number;
  readonly readyAfterMs: number;
  /** Absent with `hold`. */
  readonly poweredOffAfterMs?: number;
  /** As the guest names it, e.g. /dev/sda1. */
  readonly rootDevice: string;
  readonly fsType: string;
  /** SHA-256 of the guest's /payload.bin as the guest read it. */
  readonly payloadSha256: string;
  /** SHA-256 of what the guest wrote in this boot; absent without `write`. */
  readonly wroteSha256?: string;
  /** SHA-256 of what it found that it had written in an earlier boot, where it had, and which it was then. */
  readonly kept?: { readonly sha256: string; readonly expected: string };
  /** Of the load of an earlier boot: how many files, and whether all of them read as they were written. */
  readonly loadKept?: { readonly files: number; readonly isRight: boolean };
  /** The last MiB of the console. */
  readonly serial: string;
  readonly commandLine: readonly string[];
  readonly accelerator: 'kvm' | 'tcg';
}

const defaultTimeoutMs = 240_000;
const serialLimitCharacters = 1 << 20;
const serialTailLines = 25;

/** libfuse 2 leaks its idle threads above about ten; a mount made by it is slow for ever after a burst. */
const ioThreadsMax = 8;

/** Newer releases ship the 4 MiB build only. */
const uefiFirmware = [
  { code: '/usr/share/OVMF/OVMF_CODE_4M.fd', variables: '/usr/share/OVMF/OVMF_VARS_4M.fd' },
  { code: '/usr/share/OVMF/OVMF_CODE.fd', variables: '/usr/share/OVMF/OVMF_VARS.fd' },
];

const readyLine = /^VENEER-GUEST-READY root=(\S+) fs=(\S+) payload=([0-9a-f]{64})\r?\n/m;

const wroteLine = /^VENEER-GUEST-WROTE sha256=([0-9a-f]{64})\r?\n/m;
const keptLine = /^VENEER-GUEST-KEPT sha256=([0-9a-f]{64}) expected=([0-9a-f]{64})\r?\n/m;

const loadLines = /^VENEER-GUEST-LOAD round=(\d+) (ok|bad)\r?\n/gm;
const loadKeptLine = /^VENEER-GUEST-LOAD-KEPT files=(\d+) (ok|bad)\r?\n/m;

const run = promisify(execFile);

function diskArguments(options: BootOptions): string[] {
  const bus = options.bus ?? 'virtio-blk';
  if (options.readOnly === true && (bus === 'ide' || bus === 'ahci')) {
    throw new Error(`a disk on ${bus} cannot be read-only: use virtio-blk, virtio-scsi or nvme, or snapshot`);
  }
  const drive =
    options.overlay === undefined
      ? [`file=${quoted(options.drive)}`, `format=${options.format}`]
      : [`file=${quoted(options.overlay)}`, 'format=qcow2'];
  drive.push('if=none', 'id=disk0', 'aio=threads');
  if (options.overlay === undefined && options.snapshot !== false && options.readOnly !== true) {
    drive.push('snapshot=on');
  }
  if (options.readOnly === true) drive.push('readonly=on');
  if (options.cache !== undefined) drive.push(`cache=${options.cache}`);
  return ['-drive', drive.join(','), ...deviceArguments(bus)];
}

function firmwareArguments(firmware: 'bios' | 'uefi'): string[] {
  if (firmware === 'bios') return [];
  const files = uefiFirmware.find(({ code, variables }) => existsSync(code) && existsSync(variables));
  if (files === undefined) throw new Error('no UEFI firmware at /usr/share/OVMF: install the package ovmf');
  return [
    ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${files.code}`],
    // The variables' template stays as it is.
    ...['-drive', `if=pflash,unit=1,format=raw,snapshot=on,file=${files.variables}`],
  ];
}

function machineArguments(options: BootOptions, accelerator: 'kvm' | 'tcg'): string[] {
  const wishes = [
    ...(options.hold === true ? ['veneer.hold'] : []),
    ...(options.write === true ? ['veneer.write'] : []),
    ...(options.load === undefined ? [] : ['veneer.load']),
  ].join(' ');
  const processor = accelerator === 'kvm' ? ['kvm', '-cpu', 'host'] : ['tcg,thread=multi', '-cpu', 'max'];
  return [
    ...['-machine', 'pc', '-accel', ...processor, '-m', '512', '-smp', '1'],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-object', `main-loop,id=main-loop,thread-pool-max=${String(ioThreadsMax)}`],
    ...firmwareArguments(options.firmware ?? 'bios'),
    ...diskArguments(options),
    ...(wishes === '' ? [] : ['-smbios', `type=1,serial=${wishes}`]),
  ];
}

async function makeOverlay(options: BootOptions): Promise<void> {
  if (options.overlay === undefined || existsSync(options.overlay)) return;
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', options.format, '-b', options.drive, options.overlay]);
}

/** What the guest said of its own writes. */
function writtenBy(serial: string): Pick<BootReport, 'wroteSha256' | 'kept' | 'loadKept'> {
  const [, files, state] = loadKeptLine.exec(serial) ?? [];
  const wrote = wroteLine.exec(serial)?.[1];
  const [, sha256, expected] = keptLine.exec(serial) ?? [];
  return {
    ...(wrote === undefined ? {} : { wroteSha256: wrote }),
    ...(sha256 === undefined || expected === undefined ? {} : { kept: { sha256, expected } }),
    ...(files === undefined ? {} : { loadKept: { files: Number(files), isRight: state === 'ok' } }),
  };
}

/** A started QEMU. The properties grow as it runs. */
interface Machine {
  /** Resolves at the guest's ready line; never rejects. */
  readonly ready: Promise<void>;
  /** Resolves when the process is gone, with what was wrong with its end, if anything. Rejects if it cannot start. */
  readonly exit: Promise<string | undefined>;
  readyMatch?: RegExpExecArray;
  readyAfterMs: number;
  firstOutputAfterMs: number;
  endedAfterMs: number;
  serial: string;
  errors: string;
  /** Types a line at the guest's console. */
  type(line: string): void;
  kill(): void;
}

/** Runs what the caller does while the guest is under its load, and ends that. @throws Error when the guest read back something else */
async function underLoad(machine: Machine, load: (guest: LoadedGuest) => Promise<void>): Promise<void> {
  const rounds = (): number => {
    const found = [...machine.serial.matchAll(loadLines)];
    const bad = found.find(([, , state]) => state !== 'ok');
    if (bad !== undefined) throw new Error(`the guest's load read back something else in round ${bad[1] ?? '?'}`);
    return found.length;
  };
  try {
    await load({ rounds });
  } finally {
    machine.type('stop');
  }
  rounds();
}

function startMachine(commandLine: readonly string[]): Machine {
  // The kernel kills QEMU if this process dies without coming to its own clean-up.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...commandLine], { stdio: ['pipe', 'pipe', 'pipe'] });
  const startedMs = performance.now();
  const elapsedMs = (): number => Math.round(performance.now() - startedMs);
  const ready = Promise.withResolvers<void>();
  const exit = Promise.withResolvers<string | undefined>();
  const machine: Machine = {
    ready: ready.promise,
    exit: exit.promise,
    readyAfterMs: 0,
    firstOutputAfterMs: 0,
    endedAfterMs: 0,
    serial: '',
    errors: '',
    type: (line) => void child.stdin.write(`${line}\n`),
    kill: () => void child.kill('SIGKILL'),
  };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    if (machine.serial === '') machine.firstOutputAfterMs = elapsedMs();
    machine.serial = (machine.serial + text).slice(-serialLimitCharacters);
    if (machine.readyMatch !== undefined) return;
    const match = readyLine.exec(machine.serial);
    if (match === null) return;
    machine.readyMatch = match;
    machine.readyAfterMs = elapsedMs();
    ready.resolve();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    machine.errors = (machine.errors + text).slice(-serialLimitCharacters);
  });
  // A machine that has ended takes no input.
  child.stdin.on('error', () => undefined);
  child.on('error', exit.reject);
  // "close" comes after the last output; "exit" may come before.
  child.on('close', (status, signal) => {
    machine.endedAfterMs = elapsedMs();
    exit.resolve(status === 0 ? undefined : `QEMU ended with ${signal ?? `status ${String(status)}`}`);
  });
  exit.promise.catch(() => undefined);
  return machine;
}

/** Rejects when the time runs out or the signal is aborted; never resolves. Disposing ends the wait. */
function deadline(
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Disposable & { readonly passed: Promise<never> } {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = (): void => {
    reject(signal?.reason);
  };
  const timer = setTimeout(() => {
    reject(new Error(`the guest took more than ${String(timeoutMs)} ms`));
  }, timeoutMs);
  signal?.addEventListener('abort', abort);
  promise.catch(() => undefined);
  return {
    passed: promise,
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    },
  };
}

/**
 * Boots the example guest (or any disk that prints its ready line) and resolves when the guest has powered off.
 *
 * Rejects with QEMU's messages and the end of the console if the guest powers off before it is ready, if QEMU fails, or if
 * the time runs out; with the signal's reason (as the error's cause) if it is aborted.
 */
export async function bootGuest(options: BootOptions): Promise<BootReport> {
  const accelerator = options.accelerator ?? (await probeAccelerator()).accelerator;
  const commandLine = ['qemu-system-x86_64', ...machineArguments(options, accelerator)];
  await makeOverlay(options);
  options.signal?.throwIfAborted();

  using limit = deadline(options.timeoutMs ?? defaultTimeoutMs, options.signal);
  const machine = startMachine(commandLine);
  try {
    await Promise.race([machine.ready, machine.exit, limit.passed]);
    if (options.load !== undefined && machine.readyMatch !== undefined)
      await Promise.race([underLoad(machine, options.load), limit.passed]);
    if (options.hold !== true || machine.readyMatch === undefined) {
      const problem = await Promise.race([machine.exit, limit.passed]);
      if (problem !== undefined) throw new Error(problem);
    }
    if (machine.readyMatch === undefined) throw new Error('the guest powered off before it was ready');
    const [, rootDevice = '', fsType = '', payloadSha256 = ''] = machine.readyMatch;
    return {
      firstOutputAfterMs: machine.firstOutputAfterMs,
      readyAfterMs: machine.readyAfterMs,
      ...(options.hold === true ? {} : { poweredOffAfterMs: machine.endedAfterMs }),
      rootDevice,
      fsType,
      payloadSha256,
      ...writtenBy(machine.serial),
      serial: machine.serial,
      commandLine,
      accelerator,
    };
  } catch (cause) {
    const what = cause instanceof Error ? cause.message : String(cause);
    const tail = machine.serial.trimEnd().split('\n').slice(-serialTailLines).join('\n');
    const message = `${what}\n${machine.errors}ran: ${commandLine.join(' ')}\nend of the console:\n${tail}`;
    throw new Error(message, { cause });
  } finally {
    machine.kill();
    await machine.exit.catch(() => undefined);
  }
}
