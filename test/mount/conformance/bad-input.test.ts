/** Damage behind the mount: an I/O error and a line in the log, never wrong bytes. */
import fs from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { KiB, MiB } from '../../../src/base/units.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { structuresOf } from '../../backup/crafted-image.ts';
import { expectSameBytes } from '../../disk/model-disk.ts';
import { change, readFrom, readPart, writeDisk, writeExpected, writeGuest } from '../guest-disk.ts';
import { eventually, MountPlace, placeForTest } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';

const { O_RDONLY, O_DIRECT } = fs.constants;
const blockBytes = 64 * KiB;
/** Where the disk begins in `vm.vhdx`. */
const payload = 5 * MiB;

async function guestPlace(): Promise<{ place: MountPlace; raw: string; expected: string }> {
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  const expected = place.temporary.file('expected');
  await writeGuest(place.folder, raw);
  writeExpected(place.behind('vm.vhdx'), raw, expected);
  return { place, raw, expected };
}

/** A block of data that the image stores itself, and where it lies in the image. */
function storedBlock(image: string): { position: number; offset: number } {
  const found = structuresOf(fs.readFileSync(image)).find(
    ({ kind, position }) => kind === 'payload' && (position ?? 0) > 3,
  );
  if (found?.position === undefined) throw new Error(`${image} has no such block`);
  return { position: found.position, offset: found.offset + Math.floor(found.length / 2) };
}

/** Reads the whole disk in blocks. What can be read must be right. Returns the blocks that cannot. */
async function unreadableBlocks(file: string, expected: string, flags: number): Promise<number[]> {
  const unreadable: number[] = [];
  const handle = await fs.promises.open(file, flags);
  const wanted = await fs.promises.open(expected);
  try {
    const { size } = await wanted.stat();
    for (let at = payload; at < size; at += blockBytes) {
      const position = (at - payload) / blockBytes;
      let bytes: Buffer;
      try {
        bytes = await readFrom(handle, at, Math.min(blockBytes, size - at));
      } catch (error) {
        expect(error).toMatchObject({ code: 'EIO' });
        unreadable.push(position);
        continue;
      }
      expectSameBytes(bytes, await readFrom(wanted, at, bytes.length), `block ${position}`);
    }
  } finally {
    await handle.close();
    await wanted.close();
  }
  return unreadable;
}

function flip(file: string, offset: number): void {
  const byte = fs.readFileSync(file)[offset] ?? 0;
  change(file, offset, Buffer.of(byte ^ 0x40));
}

describeAboveTransports('damage', (transport) => {
  it('a flipped byte of data costs exactly its block; the log names the block and where it lies', async () => {
    const { place, expected } = await guestPlace();
    const inNewest = storedBlock(place.behind('vm.spi'));
    flip(place.behind('vm.spi'), inNewest.offset);
    await place.mount(...transport.options);
    expect(await unreadableBlocks(place.under('vm.vhdx'), expected, O_RDONLY | O_DIRECT)).toEqual([inNewest.position]);
    expect(await unreadableBlocks(place.under('vm.vhdx'), expected, O_RDONLY)).toEqual([inNewest.position]);
    expect((await place.statistics('vm.vhdx')).errors).toBeGreaterThan(0);
    const where = `vm.spi: block ${inNewest.position} (disk byte ${inNewest.position * blockBytes})`;
    await place.expectComplaint(/checksum is 0x[0-9a-f]{8}, expected 0x[0-9a-f]{8}/);
    for (const line of place.complaints()) expect(line).toContain(where);
  });

  it('a single sector of a damaged block fails too, and the sectors around the block do not', async () => {
    const { place, expected } = await guestPlace();
    const { position, offset } = storedBlock(place.behind('vm.spf'));
    flip(place.behind('vm.spf'), offset);
    await place.mount(...transport.options);
    const start = payload + position * blockBytes;
    for (const at of [start, start + blockBytes - 512]) {
      await expect(readPart(place.under('vm.vhdx'), at, 512, O_RDONLY | O_DIRECT)).rejects.toMatchObject({
        code: 'EIO',
      });
    }
    for (const at of [start - 512, start + blockBytes]) {
      const bytes = await readPart(place.under('vm.vhdx'), at, 512);
      expectSameBytes(bytes, await readPart(expected, at, 512), `the sector at ${at}`);
    }
  });

  /** Damaged before they are mounted: guests of one mount, in folders that are called by what befell them. */
  const structures = ['leaf', 'page', 'root', 'commit', 'superblock'] as const;
  const lostBytes = [100, 5000, 100 * KiB];
  describe('done before the mount', () => {
    let place: MountPlace;
    let expected: string;
    const disk = (folder: string): string => place.under(`${folder}/vm.vhdx`);

    beforeAll(async () => {
      place = new MountPlace();
      const raw = place.temporary.file('disk.raw');
      expected = place.temporary.file('expected');
      const folderOf = async (name: string): Promise<string> => {
        fs.mkdirSync(place.behind(name));
        await writeGuest(place.behind(name), raw);
        return place.behind(name);
      };
      for (const kind of structures) {
        const image = `${await folderOf(kind)}/vm.spi`;
        const found = structuresOf(fs.readFileSync(image)).find((structure) => structure.kind === kind);
        if (found === undefined) expect.fail(`no ${kind}`);
        flip(image, found.offset + 9);
      }
      for (const bytes of lostBytes) {
        const image = `${await folderOf(`without ${bytes}`)}/vm.spi`;
        fs.truncateSync(image, fs.statSync(image).size - bytes);
      }
      await folderOf('sound');
      writeExpected(place.behind('sound/vm.vhdx'), raw, expected);
      fs.truncateSync(`${await folderOf('nearly nothing')}/vm.spf`, 10);
      const other = place.temporary.file('other.raw');
      writeDisk(other, 'another guest');
      const replaced = await folderOf('another');
      for (const name of ['vm.spf', 'vm.spi']) fs.rmSync(`${replaced}/${name}`);
      await createImage(other, `${replaced}/vm.spi`);
      await place.mount(...transport.options);
      return () => place.end();
    });

    it.each(structures)('a flipped byte in the %s of an image costs errors, never wrong bytes', async (kind) => {
      expect(await unreadableBlocks(disk(kind), expected, O_RDONLY | O_DIRECT)).not.toEqual([]);
      await place.expectComplaint(new RegExp(`${kind}/vm\\.sp[if]`));
    });

    it.each(lostBytes)('an image without its last %i bytes is not read', async (bytes) => {
      const folder = `without ${bytes}`;
      await expect(readPart(disk(folder), payload, 512)).rejects.toMatchObject({ code: 'EIO' });
      await place.expectComplaint(new RegExp(`${folder}/vm\\.spi: commit.* is missing; the image is truncated`));
    });

    it('another image under the same name is not taken for the one the plugin file was made for', async () => {
      await expect(readPart(disk('another'), payload, 512)).rejects.toMatchObject({ code: 'EIO' });
      await place.expectComplaint(/another\/vm\.spi is another image than the plugin file was made for/);
    });

    it('one damaged image leaves the disks over others as they are', async () => {
      await expect(readPart(disk('nearly nothing'), payload, 512)).rejects.toMatchObject({ code: 'EIO' });
      expect(await unreadableBlocks(disk('sound'), expected, O_RDONLY)).toEqual([]);
    });
  });

  it('without a parent nothing is read; put back, all is', async () => {
    const { place, expected } = await guestPlace();
    fs.renameSync(place.behind('vm.spf'), place.temporary.file('away'));
    await place.mount(...transport.options);
    await expect(readPart(place.under('vm.vhdx'), payload, 512)).rejects.toMatchObject({ code: 'EIO' });
    await place.expectComplaint(/vm\.spi: its parent "vm\.spf" .* is not in .*; put it back beside it/);
    fs.renameSync(place.temporary.file('away'), place.behind('vm.spf'));
    const file = place.under('vm.vhdx');
    await eventually(async () => expect(await unreadableBlocks(file, expected, O_RDONLY | O_DIRECT)).toEqual([]));
  });

  it('images that are deleted while they are open read on where they are open, and cost errors elsewhere, never wrong bytes', async () => {
    const { place, expected } = await guestPlace();
    await place.mount(...transport.options);
    const file = place.under('vm.vhdx');
    // Each worker of a transport opens an image for itself.
    expect(await unreadableBlocks(file, expected, O_RDONLY | O_DIRECT)).toEqual([]);
    for (const name of ['vm.spf', 'vm.spi']) fs.rmSync(place.behind(name));
    const unreadable = await unreadableBlocks(file, expected, O_RDONLY | O_DIRECT);
    if (transport.name === 'fuse-native') expect(unreadable).toEqual([]);
    else if (unreadable.length > 0) await place.expectComplaint(/vm\.sp[if]/);
  });

  it('an image that shrinks while it is open costs errors for what is gone, never wrong bytes', async () => {
    const { place, expected } = await guestPlace();
    await place.mount(...transport.options);
    await readPart(place.under('vm.vhdx'), payload, 512);
    fs.truncateSync(place.behind('vm.spf'), 64 * KiB);
    const unreadable = await unreadableBlocks(place.under('vm.vhdx'), expected, O_RDONLY | O_DIRECT);
    expect(unreadable.length).toBeGreaterThan(0);
    await place.expectComplaint(/vm\.spf: .*(truncated|short)/);
  });

  it('an image that is overwritten in place while it is open costs errors, never wrong bytes', async () => {
    const { place, expected } = await guestPlace();
    const other = place.temporary.file('other.raw');
    writeDisk(other, 'another guest');
    await createImage(other, place.temporary.file('other.spf'));
    await place.mount(...transport.options);
    await readPart(place.under('vm.vhdx'), payload, 512);
    change(place.behind('vm.spf'), 0, fs.readFileSync(place.temporary.file('other.spf')));
    await unreadableBlocks(place.under('vm.vhdx'), expected, O_RDONLY | O_DIRECT);
    await readPart(place.under('vm.vhdx'), 0, payload);
  });

  it('an image that is replaced while it is mounted is refused once the old one is closed', async () => {
    const { place, expected } = await guestPlace();
    await place.mount(...transport.options, '--idle', '1');
    await readPart(place.under('vm.vhdx'), payload, 512);
    const other = place.temporary.file('other.raw');
    writeDisk(other, 'another guest');
    await createImage(other, place.temporary.file('other.spf'));
    fs.renameSync(place.temporary.file('other.spf'), place.behind('vm.spi'));
    await unreadableBlocks(place.under('vm.vhdx'), expected, O_RDONLY | O_DIRECT);
    await eventually(async () => expect(await place.statistics('vm.vhdx')).toMatchObject({ imageOpenNow: 0 }), 4000);
    await expect(readPart(place.under('vm.vhdx'), payload + 9 * MiB, 512, O_RDONLY | O_DIRECT)).rejects.toMatchObject({
      code: 'EIO',
    });
  });
});
