/** Which volume each drive letter of a Windows means. */
import type { GuestDisk, GuestVolume } from '../../volume/open-disk.ts';
import { nameOf, nameOfMounted, sameName } from './disk-names.ts';
import { findInstallation } from './installation.ts';
import { readMountedDevices } from './mounted-devices.ts';

export interface LetteredVolume {
  /** `C:` */
  readonly letter: string;
  readonly volume: GuestVolume;
}

const letterPattern = /^\\DosDevices\\([A-Z]:)$/i;

/**
 * Letters of volumes of this disk, that of Windows first; none where there is no Windows.
 * @throws FormatError when a hive is broken, UnsupportedError when it is older than Windows 7
 */
export function driveLetters(guest: GuestDisk): LetteredVolume[] {
  const found = findInstallation(guest.volumes);
  if (found === undefined) return [];
  const { drive } = found.version;
  const windows = { letter: `${drive.toUpperCase()}:`, volume: found.windows.volume };
  const others = readMountedDevices(found.system.editor.hive).flatMap((device) => {
    const letter = letterPattern.exec(device.name)?.[1]?.toUpperCase();
    const meant = nameOfMounted(device);
    const volume = guest.volumes.find(({ partition }) => {
      const own = nameOf(guest.table, partition);
      return own !== undefined && sameName(own, meant);
    });
    if (letter === undefined || volume === undefined || letter === windows.letter) return [];
    return [{ letter, volume }];
  });
  return [windows, ...others.sort((a, b) => (a.letter < b.letter ? -1 : 1))];
}
