/** Which file of a folder of drivers is for which Windows, and what is refused. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { MiB } from '../../../src/base/units.ts';
import { findDriver, virtioWinFolder, type DriverGuest } from '../../../src/guest/windows/driver-folder.ts';
import { seededTest } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { driverFor, writeVirtioWin } from './drivers.ts';

const windows10: DriverGuest = {
  version: { name: 'Windows 10 Pro', build: 19_045, server: false },
  architecture: 'amd64',
};

it('every Windows has a folder in virtio-win', () => {
  const clients = [7601, 9200, 9600, 10_240, 19_045, 22_000, 22_631, 26_100];
  expect(clients.map((build) => virtioWinFolder({ build, server: false }))).toEqual([
    'w7',
    'w8',
    'w8.1',
    'w10',
    'w10',
    'w11',
    'w11',
    'w11',
  ]);
  const servers = [7601, 9200, 9600, 14_393, 17_763, 20_348, 25_398, 26_100];
  expect(servers.map((build) => virtioWinFolder({ build, server: true }))).toEqual([
    '2k8R2',
    '2k12',
    '2k12R2',
    '2k16',
    '2k19',
    '2k22',
    '2k22',
    '2k25',
  ]);
  expect(virtioWinFolder({ build: undefined, server: false })).toBeUndefined();
});

it('the driver is taken from the folder of its Windows and processor, in any case of letters, or from its own', () => {
  using folder = new TempFolder();
  const root = folder.file('iso');
  const written = writeVirtioWin(root, ['viostor/w10/amd64', 'viostor/W11/ARM64'], seededTest('layout'));
  const capitals = folder.file('capitals');
  writeVirtioWin(capitals, ['VIOSTOR/2K8R2/X86'], seededTest('layout in capitals'));
  const taken = findDriver(root, 'viostor', windows10);
  expect(taken?.path).toBe(path.join(root, 'viostor/w10/amd64/viostor.sys'));
  expect(written.get('viostor/w10/amd64/viostor.sys')?.equals(taken?.contents ?? Buffer.alloc(0))).toBe(true);
  const arm = { version: { name: 'Windows 11', build: 22_631, server: false }, architecture: 'arm64' } as const;
  expect(findDriver(root, 'viostor', arm)?.path).toBe(path.join(root, 'viostor/W11/ARM64/viostor.sys'));
  const old = { version: { name: 'Windows Server 2008 R2', build: 7601, server: true }, architecture: 'x86' } as const;
  expect(findDriver(capitals, 'viostor', old)?.path).toBe(path.join(capitals, 'VIOSTOR/2K8R2/X86/VIOSTOR.sys'));
  const own = path.join(root, 'viostor/w10/amd64');
  expect(
    findDriver(own, 'viostor', { ...windows10, version: { name: 'Windows', build: undefined, server: false } })?.path,
  ).toBe(path.join(own, 'viostor.sys'));
  expect(findDriver(root, 'vioscsi', windows10)).toBeUndefined();
  expect(findDriver(own, 'vioscsi', windows10)).toBeUndefined();
});

it('what is not for the guest, or no driver, is refused in one line that says where and what to do', () => {
  using folder = new TempFolder();
  const random = seededTest('refused drivers');
  const root = folder.file('iso');
  writeVirtioWin(root, ['viostor/w10/amd64', 'vioscsi/w10/amd64'], random);
  const refusal = (name: string, guest: DriverGuest = windows10, at = root): string => {
    try {
      findDriver(at, name, guest);
    } catch (error) {
      const text = error instanceof Error ? error.message : '';
      expect(text).not.toContain('\n');
      return text;
    }
    throw new Error('was not refused');
  };
  expect(refusal('viostor', { ...windows10, architecture: 'x86' })).toMatch(/viostor\/w10\/x86: has no viostor\.inf/);
  expect(refusal('viostor', { ...windows10, version: { name: 'Windows 7', build: 7601, server: false } })).toMatch(
    /viostor\/w7\/amd64: has no viostor\.inf and viostor\.sys for Windows 7; unpack/,
  );
  expect(refusal('viostor', { ...windows10, version: { name: 'Windows', build: undefined, server: false } })).toMatch(
    /cannot be told; give --virtio-win/,
  );
  const file = path.join(root, 'viostor/w10/amd64/viostor.sys');
  for (const [contents, said] of [
    [driverFor('x86', 5000, random), /is a driver for x86, and the guest is amd64; give/],
    [Buffer.alloc(0), /is no program of Windows; unpack/],
    [Buffer.alloc(300, 'MZ'), /is no program of Windows; unpack/],
    [random.bytes(5000), /is no program of Windows; unpack/],
    [driverFor('amd64', 8 * MiB + 1, random), /has 8388609 bytes, and a driver at most 8388608; give/],
  ] as const) {
    fs.writeFileSync(file, contents);
    expect(refusal('viostor')).toMatch(said);
  }
  fs.rmSync(file);
  expect(refusal('viostor')).toMatch(/has no viostor\.inf and viostor\.sys/);
  fs.mkdirSync(file);
  expect(refusal('viostor')).toMatch(/viostor\.sys: is no file/);
  expect(refusal('viostor', windows10, folder.file('nowhere'))).toMatch(/nowhere: is no folder that can be read; give/);
});
