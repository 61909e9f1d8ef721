/** A Windows that was not shut down for good: what its plan changes for that, and what it says. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { expect, it, type TestContext } from 'vitest';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { openGuestDisk } from '../../../src/volume/open-disk.ts';
import type { GuestPlan } from '../../../src/guest/plan.ts';
import { FilesByPath } from '../../../src/filesystem/by-path.ts';
import { NtfsVolume } from '../../../src/filesystem/ntfs/volume.ts';
import { planWindows } from '../../../src/guest/windows/plan-windows.ts';
import { TempFolder } from '../../temp-folder.ts';
import { applyTo } from '../../filesystem/trees.ts';
import { makeVolume } from '../../filesystem/ntfs/made-volume.ts';
import { filledHive, hivexValue, skipWithout } from './hives.ts';
import { Machine, smallSystem, systemFile, withPartition } from './machine.ts';

const fastStartup = [
  '[\\ControlSet001\\Control\\Session Manager]',
  '[\\ControlSet001\\Control\\Session Manager\\Power]',
  '"HiberbootEnabled"=dword:00000001',
];

/** The plan for a Windows on a volume to which this was done. */
function planAfter(context: TestContext, change: (image: string) => void): GuestPlan {
  using folder = new TempFolder();
  skipWithout(context, ['hivexregedit']);
  const { image } = makeVolume(context, folder, { files: { [systemFile]: filledHive(smallSystem) } });
  change(image);
  const plan = planWindows(openGuestDisk(memoryDisk(withPartition(fs.readFileSync(image)))), 'virtualbox');
  return plan ?? expect.fail('no Windows was found');
}

it('fast startup is switched off, and a number that is 0 already stays as it is', (context) => {
  using folder = new TempFolder();
  skipWithout(context, ['hivexregedit', 'hivexget']);
  const machine = new Machine(context, folder, { [systemFile]: filledHive([...smallSystem, ...fastStartup]) });
  const plan = machine.plan('virtualbox');
  expect(plan.changes).toContainEqual(
    expect.objectContaining({
      where: 'SYSTEM: ControlSet001\\Control\\Session Manager\\Power\\HiberbootEnabled',
      old: '1',
      new: '0',
    }),
  );
  machine.apply(plan);
  const hive = folder.write('hive', machine.file(systemFile));
  expect(hivexValue(hive, '\\ControlSet001\\Control\\Session Manager\\Power', 'HiberbootEnabled')).toBe('0');
  expect(machine.plan('virtualbox').changes).toEqual([]);
});

it('a volume that is marked dirty is said in the plan', (context) => {
  // Without -n, ntfsfix marks it.
  const plan = planAfter(context, (image) => execFileSync('ntfsfix', [image], { stdio: 'pipe' }));
  expect(plan.warnings).toContainEqual(expect.stringMatching(/^NTFS: the volume is marked dirty; .*chkdsk/));
});

it('a journal that was not closed is said in the plan, and that of a clean volume is not', (context) => {
  const open = planAfter(context, (image) => {
    const volume = new FilesByPath(new NtfsVolume(memoryDisk(fs.readFileSync(image))));
    const [log] = volume.locate('/$LogFile');
    // A restart page of a client that was in use.
    const page = Buffer.alloc(4096);
    page.write('RSTR');
    page.writeUInt16LE(0x30, 24);
    applyTo(image, [{ offsetBytes: log?.volumeOffset ?? -1, before: page, after: page }]);
  });
  expect(open.warnings).toContainEqual(expect.stringMatching(/^NTFS: the journal .* ends without a clean dismount/));
  const clean = planAfter(context, () => undefined);
  expect(clean.warnings.filter((warning) => warning.startsWith('NTFS'))).toEqual([]);
});
