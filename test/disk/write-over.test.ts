/** A disk is written over a block device that nobody uses, all of it, and what lies behind it stays. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { CapacityError, UsageError } from '../../src/base/errors.ts';
import { MiB } from '../../src/base/units.ts';
import { takeDevice } from '../../src/disk/block-device.ts';
import { openFileDisk } from '../../src/disk/file.ts';
import { writeDiskOver } from '../../src/disk/write-over.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { attachLoopDevice, whyNoLoopDevices, type LoopDevice } from './loop-device.ts';

beforeEach((context) => {
  const reason = whyNoLoopDevices();
  if (reason !== undefined) context.skip(reason);
});

const deviceBytes = 32 * MiB;

/** A device whose bytes are all 0xa5. */
function deviceIn(folder: TempFolder, ...options: string[]): LoopDevice {
  return attachLoopDevice(folder.write('device.img', Buffer.alloc(deviceBytes, 0xa5)), options);
}

function run(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
}

function bytesOf(device: LoopDevice): Buffer {
  const bytes = Buffer.alloc(deviceBytes);
  const fd = fs.openSync(device.path, 'r');
  try {
    expect(fs.readSync(fd, bytes, 0, bytes.length, 0)).toBe(deviceBytes);
  } finally {
    fs.closeSync(fd);
  }
  return bytes;
}

/** Data, holes, and an end that is no whole sector. */
function sourceIn(folder: TempFolder, sizeBytes: number): string {
  const file = folder.file('source.raw');
  const fd = fs.openSync(file, 'w');
  try {
    const random = new Seeded('written over');
    fs.ftruncateSync(fd, sizeBytes);
    for (const at of [0, 9 * MiB - 100, sizeBytes - 5000]) fs.writeSync(fd, random.bytes(4999), 0, 4999, at);
  } finally {
    fs.closeSync(fd);
  }
  return file;
}

it('all of the disk is written, zeros too, and what lies behind it stays', () => {
  using folder = new TempFolder();
  using device = deviceIn(folder);
  const source = sourceIn(folder, 20 * MiB + 123);
  const disk = openFileDisk(source);
  const steps: number[] = [];
  const done = writeDiskOver(disk, device.path, (bytes) => steps.push(bytes));
  disk.close();
  expect(done).toMatchObject({ behindBytes: deviceBytes - (20 * MiB + 123) });
  const expected = Buffer.alloc(deviceBytes, 0xa5);
  fs.readFileSync(source).copy(expected);
  expect(bytesOf(device).equals(expected)).toBe(true);
  expect(steps.at(-1)).toBe(2 * (20 * MiB + 123));
  expect(steps).toEqual([...steps].sort((a, b) => a - b));
});

it('a device that is too small is left alone', () => {
  using folder = new TempFolder();
  using device = deviceIn(folder);
  const disk = openFileDisk(sourceIn(folder, deviceBytes + 1));
  expect(() => writeDiskOver(disk, device.path, () => undefined)).toThrow(CapacityError);
  disk.close();
  expect(bytesOf(device).every((byte) => byte === 0xa5)).toBe(true);
});

describe('a device is not taken', () => {
  function expectInUse(device: string, says = /is in use/): void {
    expect(() => takeDevice(device)).toThrow(UsageError);
    expect(() => takeDevice(device)).toThrow(says);
  }

  it('while it is mounted', () => {
    using folder = new TempFolder();
    using device = deviceIn(folder);
    run('mkfs.ext4', '-q', '-F', device.path);
    fs.mkdirSync(folder.file('mounted'));
    run('mount', device.path, folder.file('mounted'));
    try {
      expectInUse(device.path, /mounted/);
    } finally {
      run('umount', folder.file('mounted'));
    }
    takeDevice(device.path).close();
  });

  it('while another loop device shows it', () => {
    using folder = new TempFolder();
    using device = deviceIn(folder);
    {
      using above = attachLoopDevice(device.path, []);
      expectInUse(device.path, /shows it/);
      takeDevice(above.path).close();
    }
    takeDevice(device.path).close();
  });

  it('while a program has it open for writing', () => {
    using folder = new TempFolder();
    using device = deviceIn(folder);
    const holder = spawnHolder(device.path);
    try {
      expectInUse(device.path, new RegExp(`process ${holder.pid}, has it open for writing`));
    } finally {
      holder.end();
    }
    takeDevice(device.path).close();
  });

  it('while a part of it is mounted, or it is a member of a device mapper', (context) => {
    using folder = new TempFolder();
    using device = deviceIn(folder);
    const name = `veneer-test-${process.pid}`;
    const table = `0 ${deviceBytes / 512} linear ${device.path} 0`;
    if (spawnSync('dmsetup', ['create', name, '--table', table]).status !== 0) {
      context.skip('no device mapper here');
      return;
    }
    try {
      expectInUse(device.path, /a member of another device/);
    } finally {
      run('dmsetup', 'remove', '--retry', name);
    }
    takeDevice(device.path).close();
  });
});

/** A process that has the device open, and says so. */
function spawnHolder(device: string): { readonly pid: number; end(): void } {
  const { stdout, status, stderr } = spawnSync(
    'bash',
    ['-c', 'exec 9<>"$1"; sleep 60 > /dev/null 2>&1 & echo $!', 'bash', device],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(stderr);
  const pid = Number(stdout.trim());
  return { pid, end: () => process.kill(pid, 'SIGKILL') };
}
