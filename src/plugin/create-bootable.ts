/** The disk around volumes for a plugin file that is being made: the volumes are looked at, and the boot loader is built, once. */
import path from 'node:path';
import { assert, CapacityError, UnsupportedError, UsageError } from '../base/errors.ts';
import { absolutePath } from '../base/given-names.ts';
import { closeAll, type Closable } from '../base/ownership.ts';
import type { Guid } from '../bytes/guid.ts';
import { openChainDisk, type ChainDisk } from '../backup/read/chain.ts';
import type { KeyRing } from '../backup/crypto/key-ring.ts';
import type { ImageDescription } from '../backup/format/image-description.ts';
import { assembleBootable } from '../bootable/assemble.ts';
import { type Firmware, type PartitionStyle } from '../bootable/geometry.ts';
import { makeLoader } from '../bootable/loader.ts';
import { planBootable, type BootablePlan, type BootableRequest, type GivenTable } from '../bootable/plan.ts';
import { inspectVolume } from '../bootable/volume.ts';
import type { Disk } from '../disk/disk.ts';
import { isRefusal, openGuestDisk } from '../volume/open-disk.ts';
import { tableForWindows } from '../guest/windows/installation.ts';
import { sectorBytes } from '../volume/table-layout.ts';
import type { ImagePointer } from '../source/address.ts';
import { describeBootFile } from './boot-file.ts';
import type { Bootable } from './bootable-schema.ts';

export interface BootOptions {
  readonly firmware: Firmware;
  /** Default: mbr for BIOS, gpt for UEFI. */
  readonly style?: PartitionStyle;
  /** Images of the volumes behind the first, which is the system's. */
  readonly furtherImages?: readonly string[];
  /** For a guest with no boot menu of its own. */
  readonly kernelArguments?: string;
  readonly given?: GivenTable;
}

export interface Around extends Closable {
  readonly bootable: Bootable;
  readonly bootFile: Uint8Array;
  readonly disk: Disk;
}

/**
 * @param first the system's volume; stays the caller's to close
 * @throws UsageError, CapacityError, UnavailableError: what cannot be, or what this host lacks
 */
export function makeAround(
  first: { readonly path: string; readonly disk: ChainDisk },
  pluginPath: string,
  identity: Guid,
  boot: BootOptions & { readonly keys: KeyRing | undefined },
): Around {
  const { firmware, style = firmware === 'bios' ? 'mbr' : 'gpt' } = boot;
  const chains = [first];
  const further = (): ChainDisk[] => chains.slice(1).map(({ disk }) => disk);
  try {
    for (const image of boot.furtherImages ?? [])
      chains.push({ path: image, disk: openChainDisk(image, undefined, undefined, boot.keys) });
    const volumes = chains.map((chain) => {
      const { logicalSectorBytes } = newestOf(chain.disk);
      if (logicalSectorBytes !== sectorBytes) {
        throw new UnsupportedError(
          `${chain.path}: has sectors of ${logicalSectorBytes} bytes; a disk is made of sectors of ${sectorBytes}`,
        );
      }
      return inspectVolume(chain.disk, chain.path);
    });
    const request = {
      identity,
      firmware,
      style,
      volumes,
      loader: makeLoader(firmware, style, volumes),
      ...(boot.kernelArguments === undefined ? {} : { kernelArguments: boot.kernelArguments }),
    };
    const { geometry, bootFile } =
      boot.given === undefined
        ? planAsRemembered(
            request,
            chains.map((chain) => chain.disk),
          )
        : planBootable({ ...request, given: boot.given });
    const bootable: Bootable = {
      ...geometry,
      furtherImages: chains
        .slice(1)
        .map((chain) => pointerTo(newestOf(chain.disk), relativePathOf(chain.path, pluginPath))),
      ...(bootFile.length === 0 ? {} : { bootFile: describeBootFile(pluginPath, bootFile) }),
    };
    const disks = chains.map(({ disk }) => disk);
    const disk = assembleBootable(geometry, disks, bootFile);
    return { bootable, bootFile, disk, close: () => closeAll(further()) };
  } catch (error) {
    closeAll(further());
    throw error;
  }
}

/** With the signature, the GUIDs and the places that a Windows on these volumes remembers, as far as they can be had together. */
function planAsRemembered(request: Omit<BootableRequest, 'given'>, disks: readonly Disk[]): BootablePlan {
  const given = rememberedTable(disks, request.style);
  if (given === undefined) return planBootable(request);
  try {
    return planBootable({ ...request, given });
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof CapacityError)) throw error;
    const partitions = given.partitions?.map(({ guid }) => (guid === undefined ? {} : { guid })) ?? [];
    return planBootable({ ...request, given: { ...given, partitions } });
  }
}

function rememberedTable(disks: readonly Disk[], style: PartitionStyle): GivenTable | undefined {
  try {
    const volumes = disks.map((disk) => openGuestDisk(disk).volumes[0]);
    return volumes.includes(undefined)
      ? undefined
      : tableForWindows(
          volumes.filter((volume) => volume !== undefined),
          style,
        );
  } catch (error) {
    // What reconfiguration would refuse can still have a disk around it.
    if (isRefusal(error)) return undefined;
    throw error;
  }
}

export function pointerTo(image: ImageDescription, relativePath: string): ImagePointer {
  const { imageId, chainId, createdAt } = image;
  return { path: relativePath, imageId, chainId, createdAt: createdAt.toISOString() };
}

/** As a plugin file names an image: from its folder, with forward slashes. */
export function relativePathOf(imagePath: string, pluginPath: string): string {
  const relative = path.relative(path.dirname(absolutePath(pluginPath)), absolutePath(imagePath));
  return relative.split(path.sep).join('/');
}

/** Of a chain, the image that it was opened by. */
export function newestOf(disk: ChainDisk): ImageDescription {
  const newest = disk.images[0];
  assert(newest !== undefined, 'a chain has no image');
  return newest.description;
}
