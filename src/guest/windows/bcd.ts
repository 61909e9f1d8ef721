/**
 * Boot configuration data: a registry hive of objects (boot manager, loaders, tools) with elements. What reconfiguring needs of it: the
 * devices, which name a partition, and the paths of the programs.
 *
 * A device that names a partition is 72 bytes wherever it stands: as the element itself, behind 16 bytes of options, or inside a file, a
 * RAM disk or a virtual disk. It is found by its form: kind, no flags, its own length. MBR, GPT and "where I was started from" take as
 * many bytes as each other, so that each is rewritten in place.
 */
import { guidFromBytes, guidToBytes, type Guid } from '../../bytes/guid.ts';
import { bytes, layout, reserved, u32le, u64le } from '../../bytes/layout.ts';
import { viewOf } from '../../bytes/view.ts';
import { decodeText, type Hive, type Key } from './registry/hive.ts';
import type { HiveEditor } from './registry/edit.ts';
import { valueTypes } from './registry/layout.ts';

/** Which partition a device means. */
export type PartitionName =
  | { readonly style: 'boot' }
  | { readonly style: 'mbr'; readonly startBytes: number; readonly signature: number }
  | { readonly style: 'gpt'; readonly partition: Guid; readonly disk: Guid };

export interface BcdDevice {
  readonly object: Guid;
  readonly element: string;
  /** Of the device inside the element. */
  readonly at: number;
  readonly partition: PartitionName;
}

export interface BcdPath {
  readonly object: Guid;
  readonly element: string;
  readonly path: string;
}

export interface Bcd {
  readonly devices: readonly BcdDevice[];
  readonly paths: readonly BcdPath[];
  /** What the store's loaders call themselves. */
  readonly descriptions: readonly string[];
}

export const bootManager: Guid = '9dea862c-5cdd-4e70-acc1-f32b344d4795';

const kinds = { boot: 5, partition: 6 } as const;
const styles = { gpt: 0, mbr: 1 } as const;
const deviceBytes = 0x48;
/** Behind the options. */
const firstDeviceBytes = 16;
const maxObjects = 4096;
const maxElements = 4096;
/** Largest start of a partition that is believed. */
const maxStartBytes = 2n ** 60n;

const device = layout('BCD device', deviceBytes, {
  kind: u32le(0),
  flags: u32le(4),
  lengthBytes: u64le(8),
  partition: bytes(16, 16),
  unused: reserved(32, 4),
  style: u32le(36),
  disk: bytes(40, 16),
  rest: reserved(56, 16),
});

/** A loader's path and a loader's description, as elements. */
const pathElement = '12000002';
const descriptionElement = '12000004';

/** @throws FormatError when the store is broken; a store without objects is an empty one */
export function readBcd(hive: Hive): Bcd {
  const devices: BcdDevice[] = [];
  const paths: BcdPath[] = [];
  const descriptions: string[] = [];
  for (const { object, element, key } of elementsOf(hive)) {
    const value = key.value('Element');
    if (value === undefined) continue;
    if (value.type === valueTypes.binary && /^[123]1/.test(element)) {
      for (const found of devicesIn(value.data())) devices.push({ object, element, ...found });
    } else if (value.type === valueTypes.text && element === pathElement) {
      paths.push({ object, element, path: decodeText(value.data()) });
    } else if (value.type === valueTypes.text && element === descriptionElement && object !== bootManager) {
      descriptions.push(decodeText(value.data()));
    }
  }
  return { devices, paths, descriptions };
}

/** Makes a device mean another partition. The element keeps its length. */
export function setDevice(editor: HiveEditor, { object, element, at }: BcdDevice, to: PartitionName): void {
  const key = elementKey(editor.hive, object, element);
  const data = new Uint8Array(key.value('Element')?.data() ?? []);
  data.fill(0, at, at + deviceBytes);
  const kind = to.style === 'boot' ? kinds.boot : kinds.partition;
  const partition = new Uint8Array(16);
  const disk = new Uint8Array(16);
  if (to.style === 'mbr') {
    viewOf(partition).setBigUint64(0, BigInt(to.startBytes), true);
    viewOf(disk).setUint32(0, to.signature, true);
  } else if (to.style === 'gpt') {
    partition.set(guidToBytes(to.partition));
    disk.set(guidToBytes(to.disk));
  }
  const style = to.style === 'mbr' ? styles.mbr : styles.gpt;
  device.encode({ kind, flags: 0, lengthBytes: BigInt(deviceBytes), partition, style, disk }, data, at);
  editor.setValue(key, 'Element', valueTypes.binary, data);
}

/** Changes the program that an object starts. */
export function setPath(editor: HiveEditor, { object, element }: BcdPath, path: string): void {
  editor.setText(elementKey(editor.hive, object, element), 'Element', path);
}

function elementKey(hive: Hive, object: Guid, element: string): Key {
  const path = `Objects\\{${object}}\\Elements\\${element}`;
  const key = hive.key(path);
  if (key === undefined) throw hive.wrong('element', 0, `${path} is gone`);
  return key;
}

function* elementsOf(hive: Hive): Generator<{ object: Guid; element: string; key: Key }> {
  let objects = 0;
  for (const objectKey of hive.key('Objects')?.subkeys() ?? []) {
    if (++objects > maxObjects) throw hive.wrong('Objects', objectKey.cell, `more than ${maxObjects}`);
    const object = /^\{([0-9a-f-]{36})\}$/i.exec(objectKey.name)?.[1]?.toLowerCase();
    if (object === undefined) continue;
    let elements = 0;
    for (const key of objectKey.subkey('Elements')?.subkeys() ?? []) {
      if (++elements > maxElements) throw hive.wrong('Elements', key.cell, `more than ${maxElements}`);
      yield { object, element: key.name.toLowerCase(), key };
    }
  }
}

/** Text in an element is UTF-16, so that a device in it begins at an even place. */
function* devicesIn(data: Uint8Array): Generator<{ at: number; partition: PartitionName }> {
  for (let at = firstDeviceBytes; at + deviceBytes <= data.length; at += 2) {
    const { kind, flags, lengthBytes, partition, style, disk } = device.parse(data, at);
    if (flags !== 0 || lengthBytes !== BigInt(deviceBytes)) continue;
    if (kind === kinds.boot) yield { at, partition: { style: 'boot' } };
    if (kind !== kinds.partition) continue;
    if (style === styles.mbr) {
      const start = viewOf(partition).getBigUint64(0, true);
      if (start > maxStartBytes) continue;
      yield { at, partition: { style: 'mbr', startBytes: Number(start), signature: viewOf(disk).getUint32(0, true) } };
    } else if (style === styles.gpt) {
      yield { at, partition: { style: 'gpt', partition: guidFromBytes(partition), disk: guidFromBytes(disk) } };
    }
  }
}
