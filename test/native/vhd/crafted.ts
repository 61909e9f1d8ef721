/** VHD files that no tool here makes: differencing ones, and broken ones with right checksums. */
import { footer, checksumWithoutField, dynamicHeader, parentLocator } from '../../../src/native/vhd/layout.ts';
import { Seeded } from '../../seeded.ts';

const blockBytes = 2 * 1024 * 1024;
const scatteredSectors = [0, 1, 2, 7, 8, 100, 4094, 4095];
/** libvhdi 20210425 takes every sector behind a set bit of the same byte of a bitmap for present: only whole bytes are fair to it. */
export const sectorsInWholeBytes = [0, 104, 112, 4088].flatMap((first) =>
  [0, 1, 2, 3, 4, 5, 6, 7].map((n) => first + n),
);

/** Makes the checksums of footer, its copy and dynamic header right, where these are. */
export function resealVhd(file: Buffer): void {
  const places: ReadonlyArray<readonly [number, number, number]> = [
    [file.length - footer.sizeBytes, footer.sizeBytes, footer.offsetOf('checksum')],
    [0, footer.sizeBytes, footer.offsetOf('checksum')],
    [footer.sizeBytes, dynamicHeader.sizeBytes, dynamicHeader.offsetOf('checksum')],
  ];
  for (const [start, length, field] of places) {
    const structure = file.subarray(start, start + length);
    const cookie = structure.toString('latin1', 0, 8);
    if (cookie !== 'conectix' && cookie !== 'cxsparse') continue;
    structure.writeUInt32BE(checksumWithoutField(structure, field), field);
  }
}

/**
 * A child of a dynamic VHD of 3 MiB (two blocks) with some sectors of its first block; the second is absent.
 *
 * ```
 * 0        512      1536  2048               2560                3072       3584     + 2 MiB
 * | footer | header | BAT | relative locator | absolute locator | bitmap | block | footer |
 * ```
 */
export function differencingChild(
  parent: Buffer,
  sectorNumbers: readonly number[] = scatteredSectors,
): {
  file: Buffer;
  sectors: ReadonlyArray<{ offset: number; bytes: Buffer }>;
} {
  const bitmapAt = 3072;
  const blockAt = bitmapAt + 512;
  const file = Buffer.alloc(blockAt + blockBytes + 512);
  parent.copy(file, 0, 0, 1536);
  file.writeUInt32BE(4, footer.offsetOf('diskType'));
  file.fill(0xd1, footer.offsetOf('uniqueId'), footer.offsetOf('uniqueId') + 16);
  const headerAt = 512;
  parent.copy(file, headerAt + dynamicHeader.offsetOf('parentUniqueId'), footer.offsetOf('uniqueId'), 84);
  const name = Buffer.from('parent.vhd', 'utf16le').swap16();
  name.copy(file, headerAt + dynamicHeader.offsetOf('parentUnicodeName'));
  const locators = [
    ['W2ku', 'C:\\vm\\parent.vhd', 2560],
    ['W2ru', '.\\parent.vhd', 2048],
  ] as const;
  for (const [index, [platformCode, path, at]] of locators.entries()) {
    const encoded = Buffer.from(path, 'utf16le');
    encoded.copy(file, at);
    const entry = {
      platformCode,
      platformDataSpace: 512,
      platformDataLength: encoded.length,
      platformDataOffset: BigInt(at),
    };
    const entryAt = headerAt + dynamicHeader.offsetOf('parentLocators') + index * parentLocator.sizeBytes;
    parentLocator.encode(entry, file, entryAt);
  }
  file.writeUInt32BE(bitmapAt / 512, 1536);
  file.fill(0xff, 1540, 2048);
  const random = new Seeded('differencing');
  const sectors = sectorNumbers.map((sector) => {
    const bytes = random.bytes(512);
    const at = bitmapAt + Math.floor(sector / 8);
    file.writeUInt8(file.readUInt8(at) | (0x80 >> (sector % 8)), at);
    bytes.copy(file, blockAt + sector * 512);
    return { offset: sector * 512, bytes };
  });
  resealVhd(file);
  file.copy(file, file.length - 512, 0, 512);
  return { file, sectors };
}
