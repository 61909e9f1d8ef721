/** A small image with every kind of structure, as the writer makes it, and a disk that says what it must read as: for damage of all kinds. */
import fs from 'node:fs';
import { VeneerError } from '../../src/base/errors.ts';
import { closing } from '../../src/base/ownership.ts';
import { KiB } from '../../src/base/units.ts';
import { openChainDisk } from '../../src/backup/read/chain.ts';
import { createImage } from '../../src/backup/write/create.ts';
import type { Codec } from '../../src/backup/format/layout.ts';
import type { ModelDisk } from '../disk/model-disk.ts';
import { Seeded } from '../seeded.ts';
import { TempFolder } from '../temp-folder.ts';
import { SourceDisk } from './source-disk.ts';

const blockBytes = 16 * KiB;

export interface TinyImage extends Disposable {
  readonly path: string;
  readonly bytes: Buffer;
  readonly model: ModelDisk;
  readonly folder: TempFolder;
  /** Writes other bytes into the image's file, in place. */
  readonly put: (bytes: Uint8Array) => void;
}

/** A full image of six blocks, four with data, one of which is stored raw. */
export async function makeTinyImage(codec: Codec = 'zstd', folder = new TempFolder()): Promise<TinyImage> {
  const random = new Seeded(`tiny image ${codec}`);
  const source = new SourceDisk(folder.file('source.raw'), 6 * blockBytes - 100);
  source.write(100, random.compressibleBytes(blockBytes));
  source.write(3 * blockBytes, random.bytes(blockBytes));
  source.write(5 * blockBytes, random.compressibleBytes(5000));
  const path = folder.file('tiny.spf');
  await createImage(source.path, path, { codec, blockBytes });
  const bytes = fs.readFileSync(path);
  const put = (changed: Uint8Array): void => fs.writeFileSync(path, changed);
  return { path, bytes, model: source.model, folder, put, [Symbol.dispose]: () => folder.remove() };
}

export interface Outcome {
  /** What refused it, if anything did. */
  readonly refusal: VeneerError | undefined;
}

/**
 * Opens the image and reads all of its disk, block by block.
 * @throws Error when it reads as anything but the model, or fails with an error that is not one of ours
 */
export function readOrRefuse(imagePath: string, model: ModelDisk): Outcome {
  try {
    using disk = closing(openChainDisk(imagePath));
    if (disk.value.sizeBytes !== model.sizeBytes) throw new Error(`reads as ${disk.value.sizeBytes} bytes`);
    let refusal: VeneerError | undefined;
    for (let at = 0; at < model.sizeBytes; at += blockBytes) {
      const block = Buffer.alloc(Math.min(blockBytes, model.sizeBytes - at));
      try {
        disk.value.read(block, at);
      } catch (error) {
        if (!isRefusal(error)) throw error;
        refusal ??= error;
        continue;
      }
      if (!block.equals(model.read(at, block.length))) throw new Error(`wrong bytes in the block at disk byte ${at}`);
    }
    return { refusal };
  } catch (error) {
    if (isRefusal(error)) return { refusal: error };
    throw error;
  }
}

/** An error that a user may meet, in one line. A failed assertion is a bug. */
function isRefusal(error: unknown): error is VeneerError {
  return error instanceof VeneerError && error.code !== 'ASSERTION' && !error.message.includes('\n');
}
