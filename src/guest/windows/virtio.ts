/**
 * virtio's drivers are not part of Windows. Where the guest has them (it ran on KVM before, or they were installed for the purpose), they
 * are started at boot. Where the user has a folder with them, they are put into the guest: the file and what the registry says of it, as
 * much as Windows needs for its first start; the rest of virtio-win is for an installer in the guest.
 */
import { CapacityError, UnsupportedError, UsageError } from '../../base/errors.ts';
import type { FilesByPath } from '../../filesystem/by-path.ts';
import type { AddedFiles } from '../../filesystem/ntfs/add-files.ts';
import { NtfsVolume } from '../../filesystem/ntfs/volume.ts';
import { findDriver, type Driver } from './driver-folder.ts';
import { registerDriver, virtioDrivers } from './driver-registration.ts';
import { architectureOf, machineOf, machines, type Architecture } from './programs.ts';
import type { RecordedEdits } from './recorded-edits.ts';
import { startAtBoot } from './services.ts';
import type { WindowsVersion } from './version.ts';

const driversFolder = '/Windows/System32/drivers';
const environmentKey = 'Control\\Session Manager\\Environment';
const kernelPath = '/Windows/System32/ntoskrnl.exe';
const headerBytes = 4096;
const howToGetThem =
  'give --virtio-win the unpacked virtio-win ISO, or start the guest once with --target qemu (IDE, SATA or NVMe) and install virtio-win there';

/** @returns what keeps Windows from starting on virtio */
export function startVirtio(
  edits: RecordedEdits,
  fileSystem: FilesByPath,
  controlSet: string,
  added: readonly Driver[],
): string[] {
  const present = virtioDrivers.filter(({ name }) => {
    const isThere = fileSystem.stat(pathOf(name))?.type === 'file' || added.some((driver) => driver.name === name);
    return isThere && startAtBoot(edits, controlSet, name, `the boot disk is on virtio, which ${name} drives`);
  });
  if (present.length === virtioDrivers.length) return [];
  const missing = virtioDrivers.flatMap(({ name }) => (present.some((one) => one.name === name) ? [] : [name]));
  return [
    `${controlSet}: this Windows has no ${missing.join(' and ')} and does not start from such a disk; ${howToGetThem}`,
  ];
}

/**
 * The drivers of a folder of this host that are for the guest.
 * @throws UsageError, UnavailableError, FormatError, CapacityError where there are none, or they do not fit
 */
export function driversFor(
  folder: string,
  edits: RecordedEdits,
  fileSystem: FilesByPath,
  controlSet: string,
  version: WindowsVersion,
): Driver[] {
  const architecture = architectureIn(edits, fileSystem, controlSet);
  const found = virtioDrivers.flatMap(({ name }) => findDriver(folder, name, { version, architecture }) ?? []);
  if (found.length === 0)
    throw new UsageError(
      `${folder}: has neither a folder viostor or vioscsi nor the files of one; give --virtio-win the unpacked virtio-win ISO`,
    );
  return found;
}

/** Puts the drivers' files into the guest. @throws UnsupportedError, FormatError where its volume cannot take them */
export function addDrivers(fileSystem: FilesByPath, drivers: readonly Driver[]): AddedFiles {
  const { volume } = fileSystem;
  if (!(volume instanceof NtfsVolume)) throw new UnsupportedError('drivers are added to NTFS only');
  return volume.addFiles(
    drivers.map(({ name, path, contents, modified }) => ({
      path: pathOf(name),
      contents,
      modified,
      source: path,
      why: `the boot disk is on virtio, which ${name} drives`,
    })),
  );
}

/** Enters the drivers in the registry. @throws UnsupportedError where that has no place or no room for them */
export function registerDrivers(
  edits: RecordedEdits,
  controlSet: string,
  drivers: readonly Driver[],
  { build }: WindowsVersion,
): void {
  try {
    for (const driver of virtioDrivers)
      if (drivers.some(({ name }) => name === driver.name)) registerDriver(edits, controlSet, driver, build);
  } catch (error) {
    if (!(error instanceof CapacityError)) throw error;
    throw new UnsupportedError(
      `${error.message}, to enter the drivers; install virtio-win in the guest on its old hardware`,
    );
  }
}

function pathOf(name: string): string {
  return `${driversFolder}/${name}.sys`;
}

/** Of the guest: what its environment says, else what its kernel is. */
function architectureIn(edits: RecordedEdits, fileSystem: FilesByPath, controlSet: string): Architecture {
  const named = architectureOf(edits.key(`${controlSet}\\${environmentKey}`)?.text('PROCESSOR_ARCHITECTURE'));
  const found = named ?? architectureOfKernel(fileSystem);
  if (found === undefined)
    throw new UnsupportedError(
      `${controlSet}: does not say what processor this Windows is for, nor does ${kernelPath}; install virtio-win in the guest on its old hardware`,
    );
  return found;
}

function architectureOfKernel(fileSystem: FilesByPath): Architecture | undefined {
  if (fileSystem.stat(kernelPath)?.type !== 'file') return undefined;
  const file = fileSystem.open(kernelPath);
  const header = new Uint8Array(Math.min(headerBytes, file.sizeBytes));
  file.read(header, 0);
  const machine = machineOf(header);
  const known: readonly Architecture[] = ['amd64', 'x86', 'arm64'];
  return known.find((one) => machines[one] === machine);
}
