/**
 * Decides whether QEMU may use KVM here, by trying it: on nested hosts /dev/kvm may open and the guest's processor may
 * still fail to start, or emulate each instruction of a 32-bit program, a thousand times slower than TCG.
 */
import { execFile } from 'node:child_process';
import { mkdtempDisposableSync, writeFileSync } from 'node:fs';
import { access, constants } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface AcceleratorProbe {
  readonly accelerator: 'kvm' | 'tcg';
  /** For people: why this one. */
  readonly reason: string;
}

const probeTimeoutMs = 2000;

/** QEMU's exit status after the program below: isa-debug-exit makes (0x2a << 1) | 1 of it. */
const probeExitStatus = 0x55;

/**
 * The boot sector, loaded at 0x7c00. It goes to 32-bit protected mode without paging, where boot loaders spend their
 * time and crippled hosts are slow, counts down from 20 million (some 10 ms on a real processor) and ends the machine.
 */
const probeCode = [
  'fa', //                   00 cli
  '31c0 8ed8', //            01 xor ax, ax; mov ds, ax
  '660f0116507c', //         05 lgdt [0x7c50]
  '0f20c0 0c01 0f22c0', //   0b mov eax, cr0; or al, 1; mov cr0, eax
  'ea187c0800', //           13 jmp 8:0x7c18
  'b9002d3101', //           18 mov ecx, 20000000
  '49 75fd', //              1d dec ecx; jnz 0x1d
  '66baf400 b02a ee', //     20 mov dx, 0xf4; mov al, 0x2a; out dx, al
  'f4 ebfd', //              27 hlt; jmp 0x27
];
/** At 0x40: the null segment, and all of memory as 32-bit code. */
const probeSegments = '0000000000000000 ffff0000009acf00';
/** At 0x50: limit and address of the above. */
const probeSegmentsPointer = '0f00 407c0000';

function probeBootSector(): Buffer {
  const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex');
  const sector = Buffer.alloc(512);
  bytes(probeCode.join('')).copy(sector, 0);
  bytes(probeSegments).copy(sector, 0x40);
  bytes(probeSegmentsPointer).copy(sector, 0x50);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

async function tryKvm(): Promise<AcceleratorProbe> {
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return { accelerator: 'tcg', reason: '/dev/kvm is absent or not ours to use' };
  }
  using directory = mkdtempDisposableSync(join(tmpdir(), 'veneer-kvm-'));
  const sectorPath = join(directory.path, 'boot.raw');
  writeFileSync(sectorPath, probeBootSector());
  const machine = ['-machine', 'pc', '-accel', 'kvm', '-cpu', 'host', '-m', '32', '-nodefaults', '-display', 'none'];
  const devices = ['-drive', `file=${sectorPath.replaceAll(',', ',,')},format=raw,if=ide`];
  const exit = ['-no-reboot', '-device', 'isa-debug-exit,iobase=0xf4,iosize=1'];
  // Awaited here: the directory must outlive the machine.
  return await new Promise((resolve) => {
    const options = { timeout: probeTimeoutMs, killSignal: 'SIGKILL' } as const;
    execFile('qemu-system-x86_64', [...machine, ...devices, ...exit], options, (error, _stdout, stderr) => {
      if (error?.code === probeExitStatus) resolve({ accelerator: 'kvm', reason: 'a test program ran under KVM' });
      else if (error?.killed) {
        resolve({ accelerator: 'tcg', reason: `KVM did not finish a 10 ms program in ${String(probeTimeoutMs)} ms` });
      } else {
        const said = stderr.split('\n').find((line) => line.includes('error')) ?? error?.message ?? 'it ended early';
        resolve({ accelerator: 'tcg', reason: `KVM failed: ${said.replace('qemu-system-x86_64: ', '').trim()}` });
      }
    });
  });
}

let memoized: Promise<AcceleratorProbe> | undefined;

/**
 * The accelerator for QEMU on this host. KVM is chosen if a real program ran under it within 2 seconds. The first answer
 * holds for the life of the process.
 */
export function probeAccelerator(): Promise<AcceleratorProbe> {
  memoized ??= tryKvm();
  return memoized;
}
