/** The disk that is put around a volume of Windows is the one that Windows remembers. */
import { expect, it } from 'vitest';
import { closing } from '../../src/base/ownership.ts';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { openChainDisk } from '../../src/backup/read/chain.ts';
import { openGuestDisk } from '../../src/volume/open-disk.ts';
import { planWindows } from '../../src/guest/windows/plan-windows.ts';
import { makeAround, type Around } from '../../src/plugin/create-bootable.ts';
import { filledHive } from '../guest/windows/hives.ts';
import { hex, smallSystem, systemFile } from '../guest/windows/machine.ts';
import { makeVolume } from '../filesystem/ntfs/made-volume.ts';
import { TempFolder } from '../temp-folder.ts';

const identity = '11111111-2222-3333-4444-555555555555';

function driveC(signature: number, startBytes: number): string {
  const value = Buffer.alloc(12);
  value.writeUInt32LE(signature);
  value.writeBigUInt64LE(BigInt(startBytes), 4);
  return `"\\\\DosDevices\\\\C:"=hex(3):${hex(value)}`;
}

for (const { startBytes, asRemembered } of [
  { startBytes: 101 * MiB, asRemembered: true },
  { startBytes: 63 * 512, asRemembered: true },
  // No sector of a disk: the place is not kept, the signature is.
  { startBytes: 1000, asRemembered: false },
]) {
  it(`a C: that began at byte ${startBytes} ${asRemembered ? 'begins there again' : 'begins elsewhere, and is told so'}`, async (context) => {
    using folder = new TempFolder();
    const hive = filledHive([...smallSystem.slice(0, -1), driveC(0x0a0b_0c0d, startBytes)]);
    const { image } = makeVolume(context, folder, { sizeBytes: 16 * MiB, files: { [systemFile]: hive } });
    const backup = folder.file('system.spf');
    await createImage(image, backup, { content: 'volume' });
    using chain = closing(openChainDisk(backup));
    const boot = { firmware: 'bios', keys: undefined } as const;
    using around = closing<Around>(
      makeAround({ path: backup, disk: chain.value }, folder.file('vm.vhdx'), identity, boot),
    );
    const { diskSignature, partitions } = around.value.bootable;
    expect(diskSignature).toBe(0x0a0b_0c0d);
    expect(partitions[0]?.startBytes).toBe(asRemembered ? startBytes : MiB);
    const plan = planWindows(openGuestDisk(around.value.disk), 'virtualbox');
    const named = plan?.changes.filter(({ where }) => /MountedDevices|hidden sectors/.test(where)) ?? [];
    expect(named).toHaveLength(asRemembered ? 0 : 1);
    expect(plan?.changes.some(({ where }) => where.includes('storahci'))).toBe(true);
  });
}
