/**
 * Raw: the disk's bytes and nothing else.
 *
 * ```
 * 0             sizeBytes
 * | disk        |
 * ```
 */

/** The largest file of ext4, XFS and NTFS in their usual configurations is smaller than this. */
export const maxDiskBytes = 2 ** 50;

export interface RawGeometry {
  readonly format: 'raw';
  readonly layout: 'flat';
  readonly sizeBytes: number;
}
