/** A file system on a loop device over a mounted raw disk: stress-ng writes and verifies files there, and the file system stays sound. */
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { MiB } from '../../src/base/units.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { run, runOk } from '../cli/veneer.ts';
import { placeForTest } from './mounted.ts';
import { describeTransports } from './transports.ts';

const diskBytes = 256 * MiB;

describeTransports('a file system over the mount', (transport) => {
  it('stress-ng finds every byte that it wrote, and e2fsck nothing to mend', async (context) => {
    if ((await run('stress-ng', ['--version'])).status !== 0) return context.skip('stress-ng is not installed');
    const place = placeForTest();
    const raw = place.temporary.file('disk.raw');
    fs.closeSync(fs.openSync(raw, 'w'));
    fs.truncateSync(raw, diskBytes);
    await runOk('mke2fs', ['-q', '-t', 'ext4', raw]);
    await createImage(raw, place.behind('vm.spf'), { content: 'volume' });
    createPluginFile(place.behind('vm.spf'), place.behind('vm.raw'));
    await place.mount(...transport.options);
    const loop = await run('losetup', ['-f', '--show', place.under('vm.raw')]);
    if (loop.status !== 0) return context.skip(`no loop device can be had: ${loop.stderr.trim()}`);
    const device = loop.stdout.trim();
    const inside = place.temporary.file('inside');
    fs.mkdirSync(inside);
    try {
      await runOk('mount', [device, inside]);
      try {
        const stress = [
          '--hdd',
          '4',
          '--hdd-bytes',
          '24m',
          '--hdd-ops',
          '2000',
          '--verify',
          '--temp-path',
          inside,
          '--timeout',
          '20s',
        ];
        expect(await runOk('stress-ng', stress, inside)).not.toContain('fail');
        await runOk('sync', ['-f', inside]);
      } finally {
        await runOk('umount', [inside]);
      }
    } finally {
      await runOk('losetup', ['-d', device]);
    }
    await runOk('e2fsck', ['-fn', place.under('vm.raw')]);
    expect(place.complaints()).toEqual([]);
  });
});
