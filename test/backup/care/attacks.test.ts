/**
 * A storage host that consolidates without the key, and lies: each of its attacks makes an image whose every checksum is right, so that scrub
 * finds nothing, and is caught by `verify` with the key, which names the position. Whoever reads with the key gets an error and no byte of it.
 */
import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { closing } from '../../../src/base/ownership.ts';
import { KiB } from '../../../src/base/units.ts';
import { openChainDisk } from '../../../src/backup/read/chain.ts';
import { consolidateChain } from '../../../src/backup/care/consolidate-chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import * as format from '../../../src/backup/format/layout.ts';
import { Seeded } from '../../seeded.ts';
import { TempFolder } from '../../temp-folder.ts';
import { Forger } from '../forger.ts';
import { faultsOf } from '../image-holds.ts';
import { keyFile, ringOf } from '../keys.ts';
import { SourceDisk } from '../source-disk.ts';

const owner = keyFile('owner');
const blockBytes = 16 * KiB;
const all = 'all.spf';

let folder: TempFolder;
/** The consolidated image as an honest host makes it, and the images that it was made from. */
let honest: Buffer;
let inputs: Buffer[];

beforeAll(async () => {
  folder = new TempFolder();
  const random = new Seeded('attacks');
  const source = new SourceDisk(folder.file('source.raw'), 700 * blockBytes);
  // Block: 2 in all images, 3 in the first two, 4 in the first alone, 5 made zero by the last, 6 in the last alone.
  const steps: readonly (readonly number[])[] = [
    [2, 3, 4, 5, 600],
    [2, 3],
    [2, 6],
  ];
  for (const [step, positions] of steps.entries()) {
    for (const position of positions) source.write(position * blockBytes, random.bytes(blockBytes));
    if (step === 2) source.zero(5 * blockBytes, blockBytes);
    await createImage(source.path, folder.file(nameOf(step)), {
      codec: 'none',
      ...(step === 0 ? { blockBytes, encrypt: owner } : { parent: folder.file(nameOf(step - 1)), keys: ringOf(owner) }),
    });
  }
  await consolidateChain([folder.file(nameOf(2))], folder.file(all));
  honest = fs.readFileSync(folder.file(all));
  inputs = [0, 1, 2].map((step) => fs.readFileSync(folder.file(nameOf(step))));
});
afterAll(() => folder.remove());

function nameOf(step: number): string {
  return step === 0 ? '0.spf' : `${step}.spi`;
}

/** All of the disk, as whoever copies it reads it: what is said to be zero is not asked for. */
function readData(file: string): void {
  using disk = closing(openChainDisk(file, undefined, undefined, ringOf(owner)));
  for (const { offset, length, kind } of disk.value.extents(0, disk.value.sizeBytes))
    if (kind === 'data') disk.value.read(Buffer.alloc(length), offset);
}

/** All of the disk, block by block. */
function readBlocks(file: string): void {
  using disk = closing(openChainDisk(file, undefined, undefined, ringOf(owner)));
  const target = Buffer.alloc(512);
  const refused = new Set<string>();
  for (let offset = 0; offset < disk.value.sizeBytes; offset += blockBytes) {
    try {
      disk.value.read(target, offset);
    } catch (error) {
      refused.add(String(error));
    }
  }
  if (refused.size > 0) throw new Error([...refused].join('\n'));
}

/** What verify says of a forged image, which nobody can read with the key; scrub says nothing. */
function caught(forge: (forger: Forger) => void, file = all, original = honest): string[] {
  const forger = new Forger(original);
  forge(forger);
  fs.writeFileSync(folder.file(file), forger.finish());
  try {
    expect(faultsOf(folder.file(file)), 'scrub sees nothing').toEqual([]);
    const said = faultsOf(folder.file(file), ringOf(owner)).map(({ message }) => message);
    for (const readAll of [readData, readBlocks]) {
      if (said.length === 0) readAll(folder.file(file));
      else
        expect(() => readAll(folder.file(file))).toThrow(
          /seal does not hold|of the chain|not what was signed|checksum/,
        );
    }
    return said;
  } finally {
    fs.writeFileSync(folder.file(file), original);
  }
}

/** A record of one of the inputs, as it is. */
function inputRecord(step: number, position: number) {
  const forger = new Forger(inputs[step] ?? honest);
  const { originSequence, codec, flags } = forger.entry(position);
  return { stored: forger.stored(position), label: { originSequence, codec, flags } };
}

describe('a consolidator that', () => {
  it('is honest is believed', () => {
    expect(caught(() => undefined)).toEqual([]);
  });

  it('drops a record is caught', () => {
    const said = caught((forger) => forger.setEntry(4, { state: format.blockState.absent }));
    expect(said).toEqual([expect.stringMatching(/block 4 \(.*is not there, but image 0 of the chain holds it/)]);
  });

  it('says that a block is zero which is not, is caught', () => {
    const said = caught((forger) => forger.setEntry(6, { state: format.blockState.zero }));
    expect(said).toEqual([expect.stringMatching(/block 6 \(.*is not there, but image 2 of the chain holds it/)]);
  });

  it('drops all records of a leaf is caught, each position named', () => {
    const said = caught((forger) => {
      forger.setEntry(600, { state: format.blockState.absent });
    });
    expect(said).toEqual([expect.stringMatching(/block 600 \(/)]);
  });

  it('exchanges two records is caught', () => {
    const said = caught((forger) => {
      const [two, six] = [forger.entry(2), forger.entry(6)];
      const [storedTwo, storedSix] = [forger.stored(2), forger.stored(6)];
      forger.putRecord(2, storedSix, six);
      forger.putRecord(6, storedTwo, two);
    });
    expect(said).toHaveLength(2);
    expect(said[0]).toMatch(/block 2 \(.*seal does not hold/);
    expect(said[1]).toMatch(/block 6 \(.*seal does not hold/);
  });

  it('moves a record to another position is caught', () => {
    const said = caught((forger) => forger.putRecord(4, forger.stored(3), forger.entry(3)));
    expect(said).toEqual([expect.stringMatching(/block 4 \(.*is the one of image 1 .*the newest is that of image 0/)]);
  });

  it('moves a record to another position and says it is of the image that belongs there, is caught', () => {
    const said = caught((forger) => forger.putRecord(4, forger.stored(3), { ...forger.entry(3), originSequence: 0 }));
    expect(said).toEqual([expect.stringMatching(/block 4 \(.*seal does not hold/)]);
  });

  it('puts a record where no image has one is caught', () => {
    const said = caught((forger) => forger.putRecord(9, forger.stored(3), forger.entry(3)));
    expect(said).toEqual([expect.stringMatching(/block 9 \(.*is there, but no image of the chain holds it/)]);
  });

  it('brings back an older record of the same position is caught', () => {
    const old = inputRecord(0, 2);
    const said = caught((forger) => forger.putRecord(2, old.stored, old.label));
    expect(said).toEqual([
      expect.stringMatching(/block 2 \(.*is the one of image 0 of the chain, but the newest is that of image 2/),
    ]);
  });

  it('brings back an older record and says it is the newest is caught', () => {
    const old = inputRecord(0, 2);
    const said = caught((forger) => forger.putRecord(2, old.stored, { ...old.label, originSequence: 2 }));
    expect(said).toEqual([expect.stringMatching(/block 2 \(.*seal does not hold/)]);
  });

  it('brings back a record of a position that was made zero is caught', () => {
    const old = inputRecord(0, 5);
    const said = caught((forger) => forger.putRecord(5, old.stored, old.label));
    expect(said).toEqual([expect.stringMatching(/block 5 \(.*is the one of image 0 .*image 2 made it zero/)]);
  });

  it('puts a record of its own there, not sealed, is caught by reading already', () => {
    const forger = new Forger(honest);
    forger.putRecord(3, Buffer.alloc(blockBytes, 'mine'), { originSequence: 1, codec: 0, flags: 0 });
    fs.writeFileSync(folder.file(all), forger.finish());
    try {
      using disk = closing(openChainDisk(folder.file(all), undefined, undefined, ringOf(owner)));
      expect(() => disk.value.read(Buffer.alloc(512), 3 * blockBytes)).toThrow(/block 3 .*every block is sealed/);
      expect(faultsOf(folder.file(all))).toHaveLength(1);
    } finally {
      fs.writeFileSync(folder.file(all), honest);
    }
  });

  it('leaves out what it knows of an image in the middle is caught', () => {
    const said = caught((forger) => forger.setProvenance(withoutSource(forger.provenance(), 1)));
    expect(said).toContainEqual(
      expect.stringMatching(/image 0 of the chain is not the parent of image 2; one between/),
    );
    expect(said).toContainEqual(expect.stringMatching(/block 3 \(/));
  });

  it('leaves out the newest image, and all that it holds, is caught', () => {
    const said = caught((forger) => forger.setProvenance(withoutSource(forger.provenance(), 0)));
    expect(said).toContainEqual(expect.stringMatching(/commit that it stands for is not what was signed/));
    expect(said).toContainEqual(expect.stringMatching(/block 6 \(/));
  });

  it('changes which positions an image held is caught', () => {
    const said = caught((forger) => {
      const provenance = forger.provenance();
      const last = provenance.length - 1;
      provenance[last] = (provenance[last] ?? 0) ^ 1;
      forger.setProvenance(provenance);
    });
    expect(said).toEqual([expect.stringMatching(/provenance of image 0 of the chain: map: checksum/)]);
  });

  it('makes the disk shorter is caught', () => {
    const said = caught((forger) =>
      forger.changeSuperblock({ sourceSizeBytes: 650n * BigInt(blockBytes), visibleBytes: 650n * BigInt(blockBytes) }),
    );
    expect(said).toContainEqual(expect.stringMatching(/its disk size is not what was signed/));
  });
});

it('an image that was not consolidated and is changed does not open with the key', () => {
  const forger = new Forger(inputs[0] ?? honest);
  forger.setEntry(4, { state: format.blockState.absent });
  fs.writeFileSync(folder.file('0.spf'), forger.finish());
  try {
    expect(faultsOf(folder.file('0.spf'))).toEqual([]);
    expect(() => openChainDisk(folder.file('0.spf'), undefined, undefined, ringOf(owner))).toThrow(
      /signature of its commit does not hold/,
    );
    expect(faultsOf(folder.file('0.spf'), ringOf(owner))).not.toEqual([]);
  } finally {
    fs.writeFileSync(folder.file('0.spf'), inputs[0] ?? honest);
  }
});

it('no byte of an encrypted image can be changed unnoticed by the key holder', () => {
  const random = new Seeded('flipped bytes of an encrypted image');
  const keyBlocks = { start: format.superblockBytes, end: format.dataOffset(true) };
  for (let round = 0; round < 60; round++) {
    const bytes = Buffer.from(honest);
    const at = random.below(bytes.length);
    if (at >= keyBlocks.start && at < keyBlocks.end) continue;
    bytes[at] = (bytes[at] ?? 0) ^ (1 + random.below(255));
    fs.writeFileSync(folder.file(all), bytes);
    const notices = (): boolean => {
      try {
        return faultsOf(folder.file(all), ringOf(owner)).length > 0;
      } catch {
        return true;
      }
    };
    expect(notices(), `byte ${at}`).toBe(true);
  }
  fs.writeFileSync(folder.file(all), honest);
});

/** A consolidated image's provenance with one of its sources left out. */
function withoutSource(provenance: Buffer, left: number): Buffer {
  const count = provenance.readUInt32LE(4);
  const rows = Array.from({ length: count }, (_, index) => provenance.subarray(16 + index * 32, 48 + index * 32));
  let at = 16 + count * 32;
  const bodies = rows.map((row) => {
    const end = at + format.superblockBytes + format.commitBytes + Number(row.readBigUInt64LE(24));
    const body = provenance.subarray(at, end);
    at = end;
    return body;
  });
  const header = Buffer.from(provenance.subarray(0, 16));
  header.writeUInt32LE(count - 1, 4);
  const kept = (parts: Buffer[]): Buffer[] => parts.filter((_, index) => index !== left);
  return Buffer.concat([header, ...kept(rows), ...kept(bodies)]);
}
