/** Which Windows it is: from the SOFTWARE hive, where that can be read, else as far as the SYSTEM hive tells. */
import { LRUCache } from 'lru-cache';
import { describeError, FormatError, UnsupportedError } from '../../base/errors.ts';
import { alignDown } from '../../base/ranges.ts';
import { KiB } from '../../base/units.ts';
import { Hive, type HiveBytes } from './registry/hive.ts';
import { maxHiveBytes } from './registry/layout.ts';
import type { FilesByPath } from '../../filesystem/by-path.ts';
import type { Disk } from '../../disk/disk.ts';

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
export function readVersion(fileSystem: FilesByPath, system: Hive, controlSet: string): WindowsVersion {
  const server = (system.key(`${controlSet}\\Control\\ProductOptions`)?.text('ProductType') ?? 'WinNT') !== 'WinNT';
  const { found, warnings } = trySoftware(fileSystem, server);
  if (found === undefined) return { ...fromSystem(system, controlSet, server), warnings };
  if ((found.build ?? 0) < firstBuild)
    throw new UnsupportedError(
      `${found.name} (build ${found.build ?? 0}) is older than Windows 7 and is not reconfigured`,
    );
  return found;
}

function trySoftware(fileSystem: FilesByPath, server: boolean): { found?: WindowsVersion; warnings: string[] } {
  try {
    const found = fromSoftware(fileSystem, server);
    return found === undefined ? { warnings: [] } : { found, warnings: [] };
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof UnsupportedError)) throw error;
    return { warnings: [`${softwarePath}: cannot be read, and so the version is a guess: ${describeError(error)}`] };
  }
}

function fromSoftware(fileSystem: FilesByPath, server: boolean): WindowsVersion | undefined {
  if (fileSystem.stat(softwarePath)?.type !== 'file') return undefined;
  const key = new Hive('SOFTWARE', pagedBytes(fileSystem.open(softwarePath))).key(versionKey);
  const build = Number(key?.text('CurrentBuild') ?? key?.text('CurrentBuildNumber'));
  if (key === undefined || !Number.isInteger(build)) return undefined;
  const product = key.text('ProductName');
  // Windows 11 still calls itself 10 there.
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

const pageBytes = 64 * KiB;
const maxPages = 64;

/** SOFTWARE is the largest hive, and little of it is read. */
function pagedBytes(file: Disk): HiveBytes {
  const sizeBytes = Math.min(file.sizeBytes, maxHiveBytes);
  const pages = new LRUCache<number, Uint8Array>({ max: maxPages });
  const pageAt = (start: number): Uint8Array => {
    const known = pages.get(start);
    if (known !== undefined) return known;
    const page = new Uint8Array(Math.min(pageBytes, sizeBytes - start));
    file.read(page, start);
    pages.set(start, page);
    return page;
  };
  return {
    sizeBytes,
    at(offset, lengthBytes) {
      const first = alignDown(offset, pageBytes);
      const page = pageAt(first);
      if (offset - first + lengthBytes <= page.length)
        return page.subarray(offset - first, offset - first + lengthBytes);
      const whole = new Uint8Array(lengthBytes);
      file.read(whole, offset);
      return whole;
    },
  };
}
