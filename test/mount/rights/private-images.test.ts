/** By a plugin file nobody reads through root's mount what he may not read behind it. */
import fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { imagesOf, parsePluginFile } from '../../../src/plugin/plugin-file.ts';
import { readPart, writeGuest } from '../guest-disk.ts';
import { placeForTest, type MountPlace } from '../mounted.ts';
import { describeAboveTransports } from '../transports.ts';
import { ActingUser, whyNotAsOthers } from './acting-user.ts';

const someone = { name: 'someone', uid: 61_001, gid: 61_001, groups: [] };
/** Guest data of `vm.vhdx`. */
const payload = 5 * 2 ** 20;

async function guestPlace(): Promise<MountPlace> {
  const place = placeForTest();
  fs.chmodSync(place.temporary.path, 0o755);
  // The folder is reached through the mount alone.
  fs.chmodSync(place.folder, 0o755);
  await writeGuest(place.folder, place.temporary.file('disk.raw'));
  return place;
}

async function codeOf(reading: Promise<unknown>): Promise<string> {
  return await reading.then(
    () => 'read',
    (error: unknown) => (error as NodeJS.ErrnoException).code ?? String(error),
  );
}

function give(file: string, uid: number, mode: number): void {
  fs.chownSync(file, uid, uid);
  fs.chmodSync(file, mode);
}

describe.skipIf(whyNotAsOthers !== undefined)('images that are private', () => {
  describeAboveTransports('a plugin file', (transport) => {
    let place: MountPlace;

    async function reads(...options: readonly string[]): Promise<string> {
      await place.mount(...transport.options, ...options);
      return await codeOf(readPart(place.under('vm.vhdx'), payload, 4096));
    }

    it('of a user points to images that he may read', async () => {
      place = await guestPlace();
      give(place.behind('vm.vhdx'), someone.uid, 0o644);
      expect(await reads()).toBe('read');
    });

    it('of a user does not show an image that he may not read; the log says what to do, and a mount can allow it', async () => {
      place = await guestPlace();
      give(place.behind('vm.vhdx'), someone.uid, 0o644);
      fs.chmodSync(place.behind('vm.spi'), 0o600);
      expect(await reads()).toBe('EACCES');
      await place.expectComplaint(
        /vm\.vhdx: user 61001 may write it, but may not read .*vm\.spi, .* mount with --trust-plugin-files/,
      );
      await place.unmount();
      expect(await reads('--trust-plugin-files')).toBe('read');
    });

    it('of a user does not show a parent that he may not read', async () => {
      place = await guestPlace();
      give(place.behind('vm.vhdx'), someone.uid, 0o644);
      fs.chmodSync(place.behind('vm.spf'), 0o600);
      expect(await reads()).toBe('EACCES');
    });

    it('of a user shows his own private images, though the folder lies where he cannot go', async () => {
      place = await guestPlace();
      for (const name of ['vm.vhdx', 'vm.spf', 'vm.spi']) give(place.behind(name), someone.uid, 0o600);
      fs.chmodSync(place.temporary.path, 0o700);
      expect(await reads()).toBe('read');
    });

    it.each([
      ['root, which nobody else may write', 0, 0o644, 'read'],
      ['root, which everybody may write', 0, 0o646, 'EACCES'],
    ])('of %s', async (_whose, uid, mode, outcome) => {
      place = await guestPlace();
      give(place.behind('vm.vhdx'), uid, mode);
      for (const name of ['vm.spf', 'vm.spi']) fs.chmodSync(place.behind(name), 0o600);
      expect(await reads()).toBe(outcome);
    });

    it('of root, which a group may write that may not read the image', async () => {
      place = await guestPlace();
      fs.chownSync(place.behind('vm.vhdx'), 0, someone.gid);
      fs.chmodSync(place.behind('vm.vhdx'), 0o664);
      fs.chmodSync(place.behind('vm.spi'), 0o640);
      expect(await reads()).toBe('EACCES');
      await place.expectComplaint(/group 61001 may write it/);
    });

    it('that names another chain than its image has is refused', async () => {
      place = await guestPlace();
      const bytes = fs.readFileSync(place.behind('vm.vhdx'));
      const [{ chainId } = { chainId: '' }] = imagesOf(parsePluginFile(bytes, 'vm.vhdx'));
      const forged = bytes.toString().replace(
        chainId,
        chainId.replace(/^./, (digit) => (digit === '0' ? '1' : '0')),
      );
      fs.writeFileSync(place.behind('vm.vhdx'), forged);
      expect(await reads()).toBe('EIO');
      await place.expectComplaint(/is another image than the plugin file was made for/);
    });
  });

  it.each([
    ['a user', [2, 6, someone.uid], /user 61001 may write it/],
    ['a group', [8, 6, someone.gid], /group 61001 may write it/],
  ])(
    'root’s plugin file that %s may write by an access control list points to nothing that he may not read',
    async (_whose, entry, says) => {
      const place = await guestPlace();
      give(place.behind('vm.vhdx'), 0, 0o644);
      for (const name of ['vm.spf', 'vm.spi']) fs.chmodSync(place.behind(name), 0o600);
      const root = new ActingUser({ name: 'root', uid: 0, gid: 0, groups: [] });
      const others = [
        [1, 6, 0xffffffff],
        [4, 4, 0xffffffff],
        [16, 6, 0xffffffff],
        [32, 4, 0xffffffff],
      ];
      const entries = [...others, entry].sort(([a = 0], [b = 0]) => a - b);
      try {
        expect(
          await root.call(place.folder, 'setAccessList', ['vm.vhdx'], ['system.posix_acl_access', entries]),
        ).toBeNull();
      } finally {
        root.end();
      }
      await place.mount('--transport', 'kernel');
      expect(await codeOf(readPart(place.under('vm.vhdx'), payload, 4096))).toBe('EACCES');
      await place.expectComplaint(says);
    },
  );

  it('who may not read a plugin file does not read its disk, and who may by an access control list does', async () => {
    const place = await guestPlace();
    give(place.behind('vm.vhdx'), 0, 0o600);
    const user = new ActingUser(someone);
    try {
      await place.mount('--transport', 'kernel');
      const read = async (): Promise<unknown> => await user.call(place.mountpoint, 'open', ['vm.vhdx'], [0, 0, '']);
      expect(await read()).toBe('EACCES');
      const root = new ActingUser({ name: 'root', uid: 0, gid: 0, groups: [] });
      const entries = [
        [1, 6, 0xffffffff],
        [2, 4, someone.uid],
        [4, 0, 0xffffffff],
        [16, 4, 0xffffffff],
        [32, 0, 0xffffffff],
      ];
      expect(
        await root.call(place.folder, 'setAccessList', ['vm.vhdx'], ['system.posix_acl_access', entries]),
      ).toBeNull();
      expect(
        await root.call(place.mountpoint, 'setAccessList', ['vm.vhdx'], ['system.posix_acl_access', entries]),
      ).toBe('EROFS');
      root.end();
      await new Promise((resolve) => setTimeout(resolve, 1200));
      expect(await read()).toMatch(/^vhdxfile/);
      expect(await user.call(place.mountpoint, 'open', ['vm.vhdx'], [2, 0, 'x'])).toBe('EACCES');
    } finally {
      user.end();
    }
  });
});
