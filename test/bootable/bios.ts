/** A PC with a BIOS, as far as boot sectors need one: its screen is the serial port, and what is on it can be read. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** A machine that is not ours to hurry takes seconds for what takes a tenth of one. */
const endsWithinMs = 60_000;

/** Starts a raw disk, until it has said something of this form, or has ended. @returns all that it said */
export async function startFromDisk(disk: string, until: RegExp): Promise<string> {
  const machine = ['-machine', 'pc,graphics=off', '-accel', 'tcg', '-m', '32', '-nodefaults', '-display', 'none'];
  const devices = ['-drive', `file=${disk},format=raw,if=ide,snapshot=on`, '-serial', 'stdio', '-no-reboot'];
  const exit = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=1'];
  const child = spawn('qemu-system-x86_64', [...machine, ...devices, ...exit], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), endsWithinMs);
  let said = '';
  child.stdout.setEncoding('latin1').on('data', (text: string) => {
    said += text;
    if (until.test(said)) child.kill('SIGKILL');
  });
  await once(child, 'close');
  clearTimeout(timer);
  return said;
}
