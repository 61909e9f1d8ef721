/** Which Windows it is: from the SOFTWARE hive, where that can be read, else as far as the SYSTEM hive tells. */
import { describeError, UnsupportedError, VeneerError } from '../../base/errors.ts';
import { Hive, type HiveBytes } from './registry/hive.ts';
import { maxHiveBytes } from './registry/layout.ts';
import type { WindowsFileSystem } from './windows-file-system.ts';

export interface WindowsVersion {
  /** `Windows 10 Pro` */
  readonly name: string;
  /** `10.0.16299`, or `unknown`. */
  readonly version: string;
  readonly build: number | undefined;
  readonly server: boolean;
  readonly drive: string;
  readonly warnings: readonly string[];
}

const softwarePath = '/Windows/System32/config/SOFTWARE';
const versionKey = 'Microsoft\\Windows NT\\CurrentVersion';
/** Windows 7 and Server 2008 R2. */
const firstBuild = 7600;
const firstBuildOf11 = 22_000;

/** The names of servers and clients by their first build. */
const names: readonly (readonly [build: number, client: string, server: string])[] = [
  [26_100, 'Windows 11', 'Windows Server 2025'],
  [22_000, 'Windows 11', 'Windows Server'],
  [20_348, 'Windows 10', 'Windows Server 2022'],
  [17_763, 'Windows 10', 'Windows Server 2019'],
  [14_393, 'Windows 10', 'Windows Server 2016'],
  [10_240, 'Windows 10', 'Windows Server'],
  [9600, 'Windows 8.1', 'Windows Server 2012 R2'],
  [9200, 'Windows 8', 'Windows Server 2012'],
  [firstBuild, 'Windows 7', 'Windows Server 2008 R2'],
];

/** @throws UnsupportedError for what is older than Windows 7 */
export function readVersion(fileSystem: WindowsFileSystem, system: Hive, controlSet: string): WindowsVersion {
  const server = (system.key(`${controlSet}\\Control\\ProductOptions`)?.text('ProductType') ?? 'WinNT') !== 'WinNT';
  try {
    const found = fromSoftware(fileSystem, server);
    if (found !== undefined) return found;
  } catch (error) {
    if (!(error instanceof VeneerError) || error.code === 'ASSERTION') throw error;
    const guessed = fromSystem(system, controlSet, server);
    return {
      ...guessed,
      warnings: [`${softwarePath}: cannot be read, and so the version is a guess: ${describeError(error)}`],
    };
  }
  return fromSystem(system, controlSet, server);
}

function fromSoftware(fileSystem: WindowsFileSystem, server: boolean): WindowsVersion | undefined {
  if (fileSystem.stat(softwarePath)?.type !== 'file') return undefined;
  const file = fileSystem.open(softwarePath);
  const bytes: HiveBytes = {
    sizeBytes: Math.min(file.sizeBytes, maxHiveBytes),
    at(offset, lengthBytes) {
      const part = new Uint8Array(lengthBytes);
      file.read(part, offset);
      return part;
    },
  };
  const key = new Hive('SOFTWARE', bytes).key(versionKey);
  const build = Number(key?.text('CurrentBuild') ?? key?.text('CurrentBuildNumber'));
  if (key === undefined || !Number.isInteger(build)) return undefined;
  const product = key.text('ProductName');
  if (build < firstBuild)
    throw new UnsupportedError(
      `${product ?? 'this Windows'} (build ${build}) is older than Windows 7 and is not reconfigured`,
    );
  const edition = build >= firstBuildOf11 && !server ? product?.replace('Windows 10', 'Windows 11') : product;
  const major = key.dword('CurrentMajorVersionNumber');
  const version =
    major === undefined
      ? (key.text('CurrentVersion') ?? '')
      : `${major}.${key.dword('CurrentMinorVersionNumber') ?? 0}`;
  const drive = /^([A-Z]):/i.exec(key.text('SystemRoot') ?? '')?.[1]?.toUpperCase() ?? 'C';
  return { name: edition ?? nameOf(build, server), version: `${version}.${build}`, build, server, drive, warnings: [] };
}

function nameOf(build: number, server: boolean): string {
  const found = names.find(([first]) => build >= first);
  return found === undefined ? 'Windows' : server ? found[2] : found[1];
}

/** Windows 8 brought storahci, 8.1 stornvme. */
function fromSystem(system: Hive, controlSet: string, server: boolean): WindowsVersion {
  const has = (service: string): boolean => system.key(`${controlSet}\\Services\\${service}`) !== undefined;
  const family = server ? 'Windows Server' : 'Windows';
  const name = has('stornvme')
    ? `${family} ${server ? '2012 R2' : '8.1'} or later`
    : has('storahci')
      ? `${family} ${server ? '2012' : '8'}`
      : has('msahci')
        ? `${family} ${server ? '2008 R2' : '7'}`
        : family;
  return { name, version: 'unknown', build: undefined, server, drive: 'C', warnings: [] };
}
