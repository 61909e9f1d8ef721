/** Plans a disk around volumes: where each lies, under what signature and GUIDs, and what boots it. Pure. */
import { CapacityError, UsageError } from '../base/errors.ts';
import { alignUp } from '../base/ranges.ts';
import { namedGuid, type Guid } from '../bytes/guid.ts';
import { sectorBytes } from '../volume/table-layout.ts';
import {
  biosBootPartitionBytes,
  configBytes,
  configLba,
  efiSystemPartitionBytes,
  maxBootFileBytes,
  maxVolumes,
  partitionAlignmentBytes,
  roomBytes,
  type BootableGeometry,
  type EfiFile,
  type Firmware,
  type Partition,
  type PartitionStyle,
} from './geometry.ts';
import { gptHeadBytes, gptTailBytes } from './gpt.ts';
import { grubConfig } from './grub-config.ts';
import type { Loader } from './loader.ts';
import { checkMbrHolds } from './mbr.ts';
import { partitionTypeOf, placementPatches, type VolumeFacts } from './volume.ts';

/** What the guest's OS remembers of its disk: with these it finds it again. */
export interface GivenTable {
  /** Of an MBR. */
  readonly diskSignature?: number;
  /** Of a GPT. */
  readonly diskGuid?: Guid;
  /** One for each volume, in order; where a start is not given, we choose it. */
  readonly partitions?: ReadonlyArray<{ readonly startBytes?: number; readonly guid?: Guid }>;
}

export interface BootableRequest {
  /** Signature and GUIDs are derived from it where they are not given. */
  readonly identity: Guid;
  readonly firmware: Firmware;
  readonly style: PartitionStyle;
  /** The first is the system's. */
  readonly volumes: readonly VolumeFacts[];
  readonly loader: Loader;
  readonly kernelArguments?: string;
  readonly given?: GivenTable;
}

/** The geometry, and the bytes that it takes from the boot file, which is empty where nothing is needed. */
export interface BootablePlan {
  readonly geometry: BootableGeometry;
  readonly bootFile: Uint8Array;
}

/**
 * @throws UsageError when the request contradicts itself; CapacityError when an MBR cannot hold the volumes
 */
export function planBootable(request: BootableRequest): BootablePlan {
  const { loader, style, volumes, given = {}, identity } = request;
  if (volumes.length === 0 || volumes.length > maxVolumes) {
    throw new UsageError(`a disk can be made around 1 to ${maxVolumes} volumes, not ${volumes.length}`);
  }
  const partitions = placePartitions(request);
  const boots = loader.kind === 'grub-bios' || loader.kind === 'grub-efi';
  const dataEnd = partitions.at(-1)?.end ?? 0;
  const roomStart = alignUp(dataEnd, partitionAlignmentBytes);
  const room = boots ? { startBytes: roomStart, sizeBytes: roomBytes } : undefined;
  const end = room === undefined ? dataEnd : roomStart + roomBytes;
  const sizeBytes = alignUp(end + (style === 'gpt' ? gptTailBytes : 0), partitionAlignmentBytes);
  const table = partitions.map(({ partition }) => partition);
  if (style === 'mbr') checkMbrHolds({ partitions: table, sizeBytes });

  const layout = { style, partitions: table, ...(room === undefined ? {} : { room }) };
  const { kernelArguments } = request;
  const config = boots ? grubConfig(layout, kernelArguments === undefined ? {} : { kernelArguments }) : undefined;
  const starts = volumes.map((_, index) => table.find(({ volume }) => volume === index)?.startBytes ?? 0);
  const geometry: BootableGeometry = {
    ...layout,
    firmware: request.firmware,
    sizeBytes,
    diskSignature: style === 'gpt' ? 0 : (given.diskSignature ?? signatureOf(identity)),
    diskGuid: given.diskGuid ?? namedGuid(identity, 'disk'),
    ...loaderParts(loader),
    ...(config === undefined ? {} : { config }),
    volumes: volumes.map((volume, index) => ({
      sizeBytes: volume.sizeBytes,
      patches: placementPatches(volume, starts[index] ?? 0),
    })),
  };
  const bootFile =
    loader.kind === 'grub-bios' ? loader.core : loader.kind === 'grub-efi' ? loader.program : new Uint8Array(0);
  if (bootFile.length > maxBootFileBytes) {
    throw new CapacityError(`GRUB has ${bootFile.length} bytes, more than the limit of ${maxBootFileBytes}`);
  }
  return { geometry, bootFile };
}

interface Placed {
  readonly partition: Partition;
  readonly end: number;
}

/** In the order of the disk. */
function placePartitions(request: BootableRequest): Placed[] {
  const { loader, style, volumes, given, identity, firmware } = request;
  const headBytes =
    loader.kind === 'grub-bios' ? configLba * sectorBytes + configBytes : style === 'gpt' ? gptHeadBytes : sectorBytes;
  const made: Placed[] = [];
  let free = alignUp(headBytes, partitionAlignmentBytes);
  const add = (partition: Omit<Partition, 'guid'>, guid?: Guid): void => {
    const named = guid ?? namedGuid(identity, `partition ${partition.volume ?? partition.type}`);
    const end = partition.startBytes + partition.sizeBytes;
    made.push({ partition: { ...partition, guid: named }, end });
    free = Math.max(free, alignUp(end, partitionAlignmentBytes));
  };
  const addOurs = (type: 'efi-system' | 'bios-boot', sizeBytes: number): void =>
    add({ type, startBytes: free, sizeBytes, active: false });
  if (loader.kind === 'grub-bios' && style === 'gpt') addOurs('bios-boot', biosBootPartitionBytes);
  if (loader.kind === 'grub-efi') addOurs('efi-system', efiSystemPartitionBytes);
  for (const [volume, facts] of volumes.entries()) {
    const wanted = given?.partitions?.[volume];
    add(
      {
        type: partitionTypeOf[facts.kind],
        startBytes: wanted?.startBytes ?? free,
        sizeBytes: alignUp(facts.sizeBytes, sectorBytes),
        active: volume === 0 && firmware === 'bios',
        volume,
      },
      wanted?.guid,
    );
  }
  // The entries of a table may be in any order; partition managers like theirs by place.
  const sorted = made.sort((a, b) => a.partition.startBytes - b.partition.startBytes);
  let end = headBytes;
  for (const { partition, end: next } of sorted) {
    if (partition.startBytes % sectorBytes !== 0 || partition.startBytes < end) {
      throw new UsageError(
        `a partition cannot start at byte ${partition.startBytes} of the disk: it must be a sector behind byte ${end}`,
      );
    }
    end = next;
  }
  return sorted;
}

/** Never 0, which means none. */
function signatureOf(identity: Guid): number {
  return Number.parseInt(namedGuid(identity, 'disk signature').slice(0, 8), 16) || 1;
}

function loaderParts(loader: Loader): Pick<BootableGeometry, 'bootCodeBase64' | 'core' | 'efiFiles'> {
  switch (loader.kind) {
    case 'none':
      return {};
    case 'chain':
      return { bootCodeBase64: Buffer.from(loader.bootCode).toString('base64') };
    case 'grub-bios':
      return {
        bootCodeBase64: Buffer.from(loader.bootCode).toString('base64'),
        core: { startBytes: loader.coreLba * sectorBytes, offsetBytes: 0, lengthBytes: loader.core.length },
      };
    case 'grub-efi': {
      const program = { offsetBytes: 0, lengthBytes: loader.program.length };
      const files: EfiFile[] = [
        { path: '/EFI/BOOT/BOOTX64.EFI', from: program },
        { path: '/EFI/BOOT/GRUB.CFG', from: 'config' },
      ];
      return { efiFiles: files };
    }
  }
}
