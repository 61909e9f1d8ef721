/**
 * A block device that a disk is written over. It is taken exclusively (O_EXCL): the kernel refuses that while it, a part of it or what it is a
 * part of is mounted, swapped to, or a member of a device mapper or of a RAID. What opens devices without that claim is looked for by itself:
 * loop devices, and programs such as QEMU that have it open for writing.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { systemErrorCode, UnavailableError, UsageError } from '../base/errors.ts';
import type { Closable } from '../base/ownership.ts';
import { seekEnd } from './lseek.ts';

export interface TakenDevice extends Closable {
  readonly fd: number;
  readonly sizeBytes: number;
}

const { O_EXCL, O_NONBLOCK, O_RDWR } = fs.constants;
const accessBits = 3;

/** Whether a path leads to a block device; a symbolic link as in /dev/disk/by-id is followed. */
export function isBlockDevice(devicePath: string): boolean {
  return fs.existsSync(devicePath) && fs.statSync(devicePath).isBlockDevice();
}

/** @throws UsageError when somebody uses it; UnavailableError */
export function takeDevice(devicePath: string): TakenDevice {
  const device = fs.statSync(devicePath).rdev;
  for (const one of relatedDevices(device)) {
    const user = loopOver(one) ?? writerOf(one);
    if (user !== undefined) throw inUse(devicePath, user);
  }
  const fd = openExclusively(devicePath);
  let closed = false;
  const close = (): void => {
    if (!closed) fs.closeSync(fd);
    closed = true;
  };
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isBlockDevice() || stat.rdev !== device)
      throw new UsageError(`${devicePath}: is no longer the device that it was; look at it, and run it again`);
    return { fd, sizeBytes: seekEnd(fd, devicePath), close };
  } catch (error) {
    close();
    throw error;
  }
}

function openExclusively(devicePath: string): number {
  try {
    return fs.openSync(devicePath, O_RDWR | O_EXCL | O_NONBLOCK);
  } catch (error) {
    if (systemErrorCode(error) === 'EBUSY')
      throw inUse(devicePath, 'it or a part of it is mounted, swapped to, or a member of another device');
    throw new UnavailableError(`${devicePath}: cannot be opened for writing`, { cause: error });
  }
}

function inUse(devicePath: string, user: string): UsageError {
  return new UsageError(`${devicePath}: is in use (${user}); nothing is written to it before that has ended`);
}

/** The device, its partitions, and the disk that it is a partition of. */
function relatedDevices(device: number): number[] {
  const folder = sysFolderOf(device);
  const related = [device];
  if (fs.existsSync(path.join(folder, 'partition'))) related.push(...numberIn(path.join(folder, '../dev')));
  for (const name of namesIn(folder))
    if (fs.existsSync(path.join(folder, name, 'partition'))) related.push(...numberIn(path.join(folder, name, 'dev')));
  return related;
}

function sysFolderOf(device: number): string {
  try {
    return fs.realpathSync(`/sys/dev/block/${majorOf(device)}:${minorOf(device)}`);
  } catch {
    return '/sys/dev/block/none';
  }
}

/** A loop device that has it as its file. */
function loopOver(device: number): string | undefined {
  for (const name of namesIn('/sys/block')) {
    const backing = textOf(`/sys/block/${name}/loop/backing_file`)?.trim();
    if (backing === undefined || !backing.startsWith('/dev/')) continue;
    if (fs.statSync(backing, { throwIfNoEntry: false })?.rdev === device) return `/dev/${name} shows it`;
  }
  return undefined;
}

/** A program that has it open for writing, as far as this user may see. */
function writerOf(device: number): string | undefined {
  for (const pid of namesIn('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)) {
    for (const fd of namesIn(`/proc/${pid}/fd`)) {
      if (!writes(`/proc/${pid}/fdinfo/${fd}`) || !leadsTo(`/proc/${pid}/fd/${fd}`, device)) continue;
      const name = textOf(`/proc/${pid}/comm`)?.trim() ?? 'a program';
      return `${name}, process ${pid}, has it open for writing`;
    }
  }
  return undefined;
}

function writes(fdInfo: string): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(textOf(fdInfo) ?? '')?.[1];
  return flags !== undefined && (Number.parseInt(flags, 8) & accessBits) !== 0;
}

function leadsTo(link: string, device: number): boolean {
  try {
    // Only what is in /dev is touched: a file of a dead network would be waited for.
    if (!fs.readlinkSync(link).startsWith('/dev/')) return false;
    const stat = fs.statSync(link, { throwIfNoEntry: false });
    return stat?.isBlockDevice() === true && stat.rdev === device;
  } catch {
    return false;
  }
}

function namesIn(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return [];
  }
}

function textOf(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/** A device number as sysfs writes it. */
function numberIn(file: string): number[] {
  const [major, minor] = (textOf(file) ?? '').trim().split(':').map(Number);
  if (major === undefined || minor === undefined) return [];
  return [deviceOf(major, minor)];
}

/** As Linux packs them: 12 bits of the major from bit 8, the minor's 8 lowest bits and its others from bit 20. */
function majorOf(device: number): number {
  return Math.floor(device / 256) % 4096;
}

function minorOf(device: number): number {
  return (device % 256) + Math.floor(device / 2 ** 20) * 256;
}

function deviceOf(major: number, minor: number): number {
  return (minor % 256) + major * 256 + Math.floor(minor / 256) * 2 ** 20;
}
