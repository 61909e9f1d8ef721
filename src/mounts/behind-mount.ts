/** What paths under this user's mounts stand for, and which folders mounts read images from. */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { absolutePath } from '../base/given-names.ts';
import { listRecords } from './mount-record.ts';

/** The absolute path in the folder behind, of a path under a mount; any other as it is, absolute. Its folder's links are resolved where it is there. */
export function behindMount(given: string): string {
  const absolute = resolved(absolutePath(given));
  const mount = listRecords().find(
    ({ mountpoint }) => absolute === mountpoint || absolute.startsWith(`${mountpoint}/`),
  );
  return mount === undefined ? absolute : path.join(mount.folder, path.relative(mount.mountpoint, absolute));
}

/** Folders of mounts whose plugin files may point into this folder. Of mounts of earlier versions, only what lies below their own folder is known. */
export function foldersServedFrom(imageFolder: string): string[] {
  const isInside = (folder: string): boolean => imageFolder === folder || imageFolder.startsWith(`${folder}/`);
  return listRecords()
    .filter(({ folder, allowPaths = [] }) => [folder, ...allowPaths].some((one) => isInside(realPath(one))))
    .map(({ folder }) => folder);
}

/** The last name may be a link, or not be there yet. */
function resolved(absolute: string): string {
  return path.join(realPath(path.dirname(absolute)), path.basename(absolute));
}

function realPath(absolute: string): string {
  try {
    return fs.realpathSync(absolute);
  } catch {
    return absolute;
  }
}
