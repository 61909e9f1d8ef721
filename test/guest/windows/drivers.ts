/** Drivers as far as a plan looks at them, and folders of them as virtio-win has them: made up, for the real ones are not at hand. */
import fs from 'node:fs';
import path from 'node:path';
import { machines, type Architecture } from '../../../src/guest/windows/programs.ts';
import type { Seeded } from '../../seeded.ts';

/** The header of a program for that machine, and bytes of a seed. */
export function driverFor(architecture: Architecture, sizeBytes: number, random: Seeded): Buffer {
  const bytes = random.bytes(sizeBytes);
  bytes.write('MZ');
  bytes.writeUInt32LE(0x80, 0x3c);
  bytes.writeUInt32LE(0x4550, 0x80);
  bytes.writeUInt16LE(machines[architecture], 0x84);
  return bytes;
}

/** Writes `viostor/w10/amd64/viostor.sys` and the like below a folder; returns their bytes by that path. */
export function writeVirtioWin(root: string, drivers: readonly string[], random: Seeded): Map<string, Buffer> {
  const written = new Map<string, Buffer>();
  for (const driver of drivers) {
    const [name = '', , architecture = ''] = driver.split('/');
    const file = `${driver}/${name}.sys`;
    const machine = architecture.toLowerCase() as Architecture;
    const contents = driverFor(machine, 60_000 + random.below(80_000), random);
    fs.mkdirSync(path.join(root, driver), { recursive: true });
    fs.writeFileSync(path.join(root, file), contents);
    fs.writeFileSync(path.join(root, driver, `${name}.inf`), '[Version]\r\nClass=SCSIAdapter\r\n');
    fs.writeFileSync(path.join(root, driver, `${name}.cat`), random.bytes(5000));
    written.set(file, contents);
  }
  return written;
}
