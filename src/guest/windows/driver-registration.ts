/**
 * What the SYSTEM hive must hold so that Windows loads a storage driver at boot that it has never seen: the service, and the devices that
 * it drives. Windows 7 looks for devices in CriticalDeviceDatabase; Windows 8 and later in DriverDatabase, at the root of the hive.
 *
 * Keys and values are those that virt-v2v writes (libguestfs-common, `inject_virtio_win.ml`), and the parameters that the driver's own
 * .inf sets. The package has neither date nor number, so that one that is installed in the guest later takes its place.
 */
import { UnsupportedError } from '../../base/errors.ts';
import { guidToBytes } from '../../bytes/guid.ts';
import type { RecordedEdits } from './recorded-edits.ts';
import { valueTypes } from './registry/layout.ts';

export interface VirtioDriver {
  readonly name: string;
  /** Hardware as PCI names it: the transitional device and the modern one. */
  readonly devices: readonly string[];
  /** What Windows calls the bus behind it (STORAGE_BUS_TYPE). */
  readonly bus: number;
}

/** Of virtio-blk and of virtio-scsi. */
export const virtioDrivers: readonly VirtioDriver[] = [
  { name: 'viostor', devices: ['VEN_1AF4&DEV_1001&REV_00', 'VEN_1AF4&DEV_1042&REV_01'], bus: 1 },
  { name: 'vioscsi', devices: ['VEN_1AF4&DEV_1004&REV_00', 'VEN_1AF4&DEV_1048&REV_01'], bus: 10 },
];

const adapterClass = '4d36e97b-e325-11ce-bfc1-08002be10318';
const packageDatabase = 'DriverDatabase';
const deviceDatabase = 'Control\\CriticalDeviceDatabase';
/** Windows 8 and Server 2012. */
const firstWithPackages = 9200;
const kernelDriver = 1;
const startAtBoot = 0;
const reportErrors = 1;
/** In the names of values: the kind of bus that an adapter is found on. */
const pciInterface = '5';
/** How well a package fits a device: by the name of its hardware, and signed. */
const deviceRank = Buffer.from('01ff0000', 'hex');
const packageVersion = Buffer.concat([
  Buffer.from('00ff090000000000', 'hex'),
  guidToBytes(adapterClass),
  Buffer.alloc(24),
]);

/**
 * @param build of Windows, where it is known
 * @throws UnsupportedError where this Windows has no place in SYSTEM for devices
 */
export function registerDriver(
  edits: RecordedEdits,
  controlSet: string,
  driver: VirtioDriver,
  build: number | undefined,
): void {
  registerService(edits, `${controlSet}\\Services\\${driver.name}`, driver);
  if (edits.key(packageDatabase) !== undefined) registerPackage(edits, driver);
  else if ((build ?? 0) < firstWithPackages && edits.key(`${controlSet}\\${deviceDatabase}`) !== undefined)
    registerDevices(edits, `${controlSet}\\${deviceDatabase}`, driver);
  else
    throw new UnsupportedError(
      `SYSTEM: has no ${build === undefined || build >= firstWithPackages ? packageDatabase : deviceDatabase} to enter ${driver.name} in; install virtio-win in the guest on its old hardware`,
    );
}

function registerService(edits: RecordedEdits, path: string, { name, bus }: VirtioDriver): void {
  const what = `declare ${name}`;
  const why = 'Windows loads it before it reads its disk';
  edits.ensureDword(path, 'Type', kernelDriver, what, why);
  edits.ensureDword(path, 'Start', startAtBoot, what, why);
  edits.ensureDword(path, 'ErrorControl', reportErrors, what, why);
  edits.ensureText(path, 'Group', 'SCSI miniport', what, why);
  edits.ensureText(path, 'ImagePath', `system32\\drivers\\${name}.sys`, what, why, valueTypes.expandText);
  edits.ensureDword(`${path}\\Parameters`, 'BusType', bus, what, why);
  edits.ensureDword(`${path}\\Parameters\\PnpInterface`, pciInterface, 1, what, why);
}

function registerDevices(edits: RecordedEdits, path: string, { name, devices }: VirtioDriver): void {
  for (const device of devices) {
    const key = `${path}\\PCI#${device}`;
    const what = `have ${name} drive a device`;
    const why = 'Windows has no other driver for it';
    edits.ensureText(key, 'Service', name, what, why);
    edits.ensureText(key, 'ClassGUID', `{${adapterClass.toUpperCase()}}`, what, why);
  }
}

/** The package's file is none that is there: the database only goes by its name. */
function registerPackage(edits: RecordedEdits, { name, devices }: VirtioDriver): void {
  const file = `veneer_${name}.inf`;
  const label = `${file}_tmp`;
  const configuration = `${name}_conf`;
  const what = `have ${name} drive a device`;
  const why = 'Windows has no other driver for it';
  const files = `${packageDatabase}\\DriverInfFiles\\${file}`;
  edits.ensureLines(files, '', [label], what, why);
  edits.ensureText(files, 'Active', label, what, why);
  edits.ensureLines(files, 'Configurations', [configuration], what, why);
  const driverPackage = `${packageDatabase}\\DriverPackages\\${label}`;
  edits.ensureBinary(driverPackage, 'Version', packageVersion, what, why);
  edits.ensureDword(`${driverPackage}\\Configurations\\${configuration}`, 'ConfigFlags', 0, what, why);
  edits.ensureText(`${driverPackage}\\Configurations\\${configuration}`, 'Service', name, what, why);
  for (const device of devices) {
    edits.ensureBinary(`${packageDatabase}\\DeviceIds\\PCI\\${device}`, file, deviceRank, what, why);
    edits.ensureText(`${driverPackage}\\Descriptors\\PCI\\${device}`, 'Configuration', configuration, what, why);
  }
}
