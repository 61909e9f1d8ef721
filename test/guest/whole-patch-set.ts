/** A patch set that lies in a file, with all that is in it: as it was before it was kept. */
import type { Disk } from '../../src/disk/disk.ts';
import type { PatchSet, StoredPatchSet } from '../../src/guest/patch-set.ts';

const parts = new Set(['file', 'patches', 'initramfs']);

export function wholePatchSet(stored: StoredPatchSet): PatchSet {
  const { patches, initramfs } = stored;
  const rest = Object.fromEntries(Object.entries(stored).filter(([name]) => !parts.has(name)));
  return {
    ...(rest as Omit<StoredPatchSet, 'file' | 'patches' | 'initramfs'>),
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
