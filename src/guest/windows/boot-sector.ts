/** The NTFS boot sector knows where on the disk it lies: its code reads from there. */
import type { Disk } from '../../disk/disk.ts';
import type { Change, Patch } from '../../filesystem/edit/patch.ts';
import type { NtfsVolume } from '../../filesystem/ntfs/volume.ts';
import { bootSector } from '../../filesystem/ntfs/layout.ts';
import { viewOf } from '../../bytes/view.ts';

const maxHiddenSectors = 0xffff_ffff;
const firstDrive = 0x80;

/**
 * Patches of the volume, for the boot sector and its copy behind the file system, that make both say where the volume begins.
 * @param startBytes of the volume on the guest's disk
 * @param name of the volume, for people
 */
export function placeBootSector(
  volume: Disk,
  ntfs: NtfsVolume,
  startBytes: number,
  name: string,
): { patches: Patch[]; changes: Change[] } {
  const { sectorBytes, sectorCount, hiddenSectors } = ntfs.geometry;
  const wanted = startBytes / sectorBytes;
  if (!Number.isInteger(wanted) || wanted > maxHiddenSectors || hiddenSectors === wanted)
    return { patches: [], changes: [] };
  const change = {
    what: 'tell the boot sector where it lies',
    where: `${name}: hidden sectors in its first sector`,
    old: String(hiddenSectors),
    new: String(wanted),
    why: 'its code reads the loader from there',
  };
  const patches = [patchAt(volume, 0, wanted)];
  const copy = sectorCount * sectorBytes;
  if (copy + bootSector.sizeBytes <= volume.sizeBytes && isSame(volume, copy))
    patches.push(patchAt(volume, copy, wanted));
  return { patches, changes: [change] };
}

/** Hidden sectors and the drive's number, with the bytes between. */
function patchAt(volume: Disk, sectorStart: number, hiddenSectors: number): Patch {
  const first = bootSector.offsetOf('hiddenSectors');
  const before = new Uint8Array(bootSector.offsetOf('drive') + 1 - first);
  volume.read(before, sectorStart + first);
  const after = new Uint8Array(before);
  viewOf(after).setUint32(0, hiddenSectors, true);
  after[bootSector.offsetOf('drive') - first] = firstDrive;
  return { offsetBytes: sectorStart + first, before, after };
}

function isSame(volume: Disk, copy: number): boolean {
  const [own, other] = [0, copy].map((at) => {
    const bytes = Buffer.alloc(bootSector.sizeBytes);
    volume.read(bytes, at);
    return bytes;
  });
  return own !== undefined && other !== undefined && own.equals(other);
}
