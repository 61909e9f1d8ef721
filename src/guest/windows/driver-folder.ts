/**
 * A folder of this host with virtio's drivers for Windows: the unpacked virtio-win ISO, which has `viostor/w10/amd64/viostor.sys`, or a
 * folder with the files of a driver itself. What is taken out of it is a program for the guest's processor, within a limit.
 */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { CapacityError, describeError, FormatError, UnavailableError, UsageError } from '../../base/errors.ts';
import { readFully } from '../../base/full-io.ts';
import { MiB } from '../../base/units.ts';
import { describeMachine, machineOf, machines, type Architecture } from './programs.ts';
import type { WindowsVersion } from './version.ts';

export interface Driver {
  /** `viostor` */
  readonly name: string;
  /** On this host. */
  readonly path: string;
  readonly contents: Uint8Array;
  readonly modified: Date;
}

/** Some fifty times the size of virtio-win's. */
const maxDriverBytes = 8 * MiB;

/** virtio-win's folders by the first build of Windows that they are for: clients and servers. */
const folders: readonly (readonly [build: number, client: string, server: string])[] = [
  [26_100, 'w11', '2k25'],
  [22_000, 'w11', '2k22'],
  [20_348, 'w10', '2k22'],
  [17_763, 'w10', '2k19'],
  [10_240, 'w10', '2k16'],
  [9600, 'w8.1', '2k12R2'],
  [9200, 'w8', '2k12'],
  [7600, 'w7', '2k8R2'],
];

/** What the choice of a driver needs to know of the guest. */
export interface DriverGuest {
  readonly version: Pick<WindowsVersion, 'name' | 'build' | 'server'>;
  readonly architecture: Architecture;
}

/** Undefined where the build is not known. */
export function virtioWinFolder({ build, server }: Pick<WindowsVersion, 'build' | 'server'>): string | undefined {
  const found = build === undefined ? undefined : folders.find(([first]) => build >= first);
  return server ? found?.[2] : found?.[1];
}

/**
 * The driver of that name for the guest; undefined where the folder has none of that name at all.
 * @throws UnavailableError where the folder cannot be read; UsageError where it has the driver, but not for this guest;
 * FormatError, CapacityError where the file cannot be a driver
 */
export function findDriver(root: string, name: string, guest: DriverGuest): Driver | undefined {
  const direct = filesOf(root, name);
  if (direct !== undefined) return readDriver(direct, name, guest);
  const own = entryOf(root, name);
  if (own === undefined) return undefined;
  const { version, architecture } = guest;
  const wanted = virtioWinFolder(version);
  if (wanted === undefined)
    throw new UsageError(
      `${own}: which of its drivers is for ${version.name} cannot be told; give --virtio-win the folder of the right one`,
    );
  const forVersion = entryOf(own, wanted);
  const forMachine = forVersion === undefined ? undefined : entryOf(forVersion, architecture);
  const files = forMachine === undefined ? undefined : filesOf(forMachine, name);
  if (files === undefined)
    throw new UsageError(
      `${path.join(own, wanted, architecture)}: has no ${name}.inf and ${name}.sys for ${version.name}; unpack a virtio-win ISO that has, or give --virtio-win the folder of the driver itself`,
    );
  return readDriver(files, name, guest);
}

/** The .sys beside its .inf, in a folder of the host. */
function filesOf(folder: string, name: string): string | undefined {
  return entryOf(folder, `${name}.inf`) === undefined ? undefined : entryOf(folder, `${name}.sys`);
}

/** ISOs are unpacked with names in capital letters, too. */
function entryOf(folder: string, name: string): string | undefined {
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch (error) {
    throw new UnavailableError(
      `${folder}: is no folder that can be read; give --virtio-win the unpacked virtio-win ISO`,
      { cause: error },
    );
  }
  const found = names.find((one) => one.toLowerCase() === name.toLowerCase());
  return found === undefined ? undefined : path.join(folder, found);
}

function readDriver(file: string, name: string, { architecture }: DriverGuest): Driver {
  const { contents, modified } = readFile(file);
  const machine = machineOf(contents);
  if (machine === undefined)
    throw new FormatError(file, 'header', 0, 'is no program of Windows; unpack the virtio-win ISO again');
  if (machine !== machines[architecture])
    throw new UsageError(
      `${file}: is a driver for ${describeMachine(machine)}, and the guest is ${architecture}; give --virtio-win a folder with that`,
    );
  return { name, path: file, contents, modified };
}

function readFile(file: string): { contents: Uint8Array; modified: Date } {
  let fd: number;
  try {
    fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    throw new UnavailableError(`${file}: cannot be opened: ${describeError(error)}`, { cause: error });
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw new UsageError(`${file}: is no file`);
    if (stat.size > maxDriverBytes)
      throw new CapacityError(
        `${file}: has ${stat.size} bytes, and a driver at most ${maxDriverBytes}; give --virtio-win another folder`,
      );
    const contents = new Uint8Array(stat.size);
    readFully(fd, contents, 0, file);
    return { contents, modified: stat.mtime };
  } finally {
    fs.closeSync(fd);
  }
}
