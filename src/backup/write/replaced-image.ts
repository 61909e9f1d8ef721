/** Whether the image at a place may be replaced by another: not while an image is made on it, somebody needs it, or somebody reads it. */
import * as fs from '../../base/fs.ts';
import path from 'node:path';
import { UsageError, VeneerError } from '../../base/errors.ts';
import type { ImageDescription } from '../format/image-description.ts';
import { lockForRemoval } from '../read/chain-lock.ts';
import { isImageFile, listImages } from '../read/folder-images.ts';
import { Image } from '../read/image.ts';

/**
 * @param whyNeeded why an image must stay
 * @throws UsageError that names who needs it; nothing where no image is there
 */
export function assertMayReplaceImage(
  imagePath: string,
  whyNeeded: (image: ImageDescription) => string | undefined = () => undefined,
): void {
  if (!fs.existsSync(imagePath) || !fs.lstatSync(imagePath).isFile() || !isImageFile(imagePath)) return;
  const description = descriptionOf(imagePath);
  const name = path.basename(imagePath);
  const { images } = listImages(path.dirname(imagePath));
  const child = images.find(({ description: { parent, imageId } }) => {
    if (parent === undefined || imageId === description?.imageId) return false;
    // A damaged image is known to its children by its name.
    return description === undefined ? parent.name === name : parent.imageId === description.imageId;
  });
  const twin = images.find(
    (image) => image.description.imageId === description?.imageId && path.basename(image.path) !== name,
  );
  if (child !== undefined && twin === undefined)
    throw new UsageError(
      `${imagePath}: ${path.basename(child.path)} is made on it, and would lose it; choose another name, or remove that one first`,
    );
  const reason = description === undefined ? undefined : whyNeeded(description);
  if (reason !== undefined && twin === undefined)
    throw new UsageError(`${imagePath}: ${reason}, and would lose it; choose another name, or remove that first`);
  lockForRemoval([imagePath]).close();
}

function descriptionOf(imagePath: string): ImageDescription | undefined {
  try {
    const image = Image.open(imagePath);
    image.close();
    return image.description;
  } catch (error) {
    if (error instanceof VeneerError) return undefined;
    throw error;
  }
}
