/** A patch set that lies in a file, with all that is in it: as it was before it was kept. */
import type { Disk } from '../../src/disk/disk.ts';
import type { PatchSet, StoredPatchSet } from '../../src/guest/patch-set.ts';

export function wholePatchSet({ patches, initramfs, file, ...rest }: StoredPatchSet): PatchSet {
  void file;
  return {
    ...rest,
    patches: patches.map((patch) => {
      const [before, after] = [Buffer.alloc(patch.lengthBytes), Buffer.alloc(patch.lengthBytes)];
      patch.readBefore(before, 0);
      patch.read(after, 0);
      return { image: patch.image, offsetBytes: patch.offsetBytes, before, after };
    }),
    ...(initramfs === undefined ? {} : { initramfs: contentsOf(initramfs) }),
  };
}

function contentsOf(disk: Disk): Buffer {
  const contents = Buffer.alloc(disk.sizeBytes);
  disk.read(contents, 0);
  return contents;
}
