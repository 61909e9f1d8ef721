/** Which Windows it is, by the builds that Microsoft published, and what is too old. */
import { expect, it, type TestContext } from 'vitest';
import { UnsupportedError } from '../../../src/base/errors.ts';
import { memoryDisk } from '../../../src/disk/memory.ts';
import { bytesInMemory, Hive } from '../../../src/guest/windows/registry/hive.ts';
import { readVersion, type WindowsVersion } from '../../../src/guest/windows/version.ts';
import { bareFiles } from './bare-files.ts';
import { filledHive, skipWithout } from './hives.ts';
import { utf16 } from './machine.ts';

const key = '[\\Microsoft\\Windows NT\\CurrentVersion]';

/** What is read of hives that say this build and this kind of product; `more` lines of SOFTWARE. */
function versionOf(context: TestContext, build: number, kind: string, more: readonly string[] = []): WindowsVersion {
  skipWithout(context, ['hivexregedit']);
  const above = ['[\\Microsoft]', '[\\Microsoft\\Windows NT]'];
  const software = filledHive([...above, key, `"CurrentBuild"=hex(1):${utf16(String(build))}`, ...more]);
  const files = bareFiles(memoryDisk(software), [['/Windows/System32/config/SOFTWARE', software.length]]);
  const product = ['[\\ControlSet001]', '[\\ControlSet001\\Control]', '[\\ControlSet001\\Control\\ProductOptions]'];
  const system = filledHive([...product, `"ProductType"=hex(1):${utf16(kind)}`]);
  return readVersion(files, new Hive('SYSTEM', bytesInMemory(system)), 'ControlSet001');
}

it.for([
  [7601, 'Windows 7', 'Windows Server 2008 R2'],
  [9200, 'Windows 8', 'Windows Server 2012'],
  [9600, 'Windows 8.1', 'Windows Server 2012 R2'],
  [14_393, 'Windows 10', 'Windows Server 2016'],
  [17_763, 'Windows 10', 'Windows Server 2019'],
  [20_348, 'Windows 10', 'Windows Server 2022'],
  [26_100, 'Windows 11', 'Windows Server 2025'],
] as const)('build %i is %s, or %s', ([build, client, server], context) => {
  expect(versionOf(context, build, 'WinNT')).toMatchObject({ name: client, build, server: false, drive: 'C' });
  expect(versionOf(context, build, 'ServerNT')).toMatchObject({ name: server, build, server: true });
  expect(versionOf(context, build, 'LanmanNT').name).toBe(server);
});

it('the name of the product is told as it is, but for a Windows 11 that calls itself 10; and so is the system drive', (context) => {
  const named = (name: string): string[] => [
    `"ProductName"=hex(1):${utf16(name)}`,
    `"SystemRoot"=hex(1):${utf16('d:\\Windows')}`,
  ];
  expect(versionOf(context, 22_631, 'WinNT', named('Windows 10 Pro'))).toMatchObject({
    name: 'Windows 11 Pro',
    drive: 'D',
  });
  expect(versionOf(context, 19_045, 'WinNT', named('Windows 10 Home')).name).toBe('Windows 10 Home');
});

it('what is older than Windows 7 is refused', (context) => {
  expect(() => versionOf(context, 6002, 'WinNT')).toThrow(UnsupportedError);
  expect(() => versionOf(context, 6002, 'ServerNT')).toThrow(/\(build 6002\) is older than Windows 7/);
});
