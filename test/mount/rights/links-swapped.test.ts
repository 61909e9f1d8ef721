/**
 * A user swaps files and folders of his for links while root's mount works on them: nothing outside the folder is touched. Both transports; the
 * one that serves nobody but root refuses the user, and root goes through no link.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { seededTest, soak } from '../../seeded.ts';
import { placeForTest, type MountPlace } from '../mounted.ts';
import { describeTransports } from '../transports.ts';
import { ActingUser, whyNotAsOthers } from './acting-user.ts';

const someone = { name: 'someone', uid: 61_001, gid: 61_001, groups: [] };
const rounds = soak ? 100_000 : 400;
const { O_RDWR, O_CREAT, O_EXCL } = fs.constants;

/** Swaps names of a folder for links and back as fast as it goes, until it is ended. Arguments: uid, folder, outside. */
const swapper = `
import os, sys
uid, folder, outside = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
made, link, sub, linked, gone = (os.path.join(folder, name) for name in ('x', 'link', 'sub', 'linked', 'gone'))
def attempt(call, *names):
    try: call(*names)
    except OSError: pass
print('swapping', flush=True)
while True:
    attempt(os.symlink, os.path.join(outside, 'target'), link)
    attempt(os.rename, link, made)
    attempt(os.symlink, outside, linked)
    attempt(os.rename, sub, gone)
    attempt(os.rename, linked, sub)
    attempt(os.unlink, made)
    attempt(os.unlink, sub)
    attempt(os.rename, gone, sub)
`;

/** A folder outside the mounted one, of root's, and the user's folder in that, with `sub` in it. */
function prepare(place: MountPlace): { outside: string; before: readonly string[] } {
  fs.chmodSync(place.temporary.path, 0o755);
  fs.chmodSync(place.folder, 0o755);
  const outside = place.temporary.file('outside');
  fs.mkdirSync(outside, { mode: 0o755 });
  fs.writeFileSync(path.join(outside, 'target'), 'root’s');
  fs.chmodSync(path.join(outside, 'target'), 0o755);
  fs.mkdirSync(place.behind('u/sub'), { recursive: true });
  for (const name of ['u', 'u/sub']) fs.chownSync(place.behind(name), someone.uid, someone.gid);
  return { outside, before: stateOf(outside) };
}

function stateOf(folder: string): readonly string[] {
  return ['.', ...fs.readdirSync(folder).sort()].map((name) => {
    const { mode, uid, gid, nlink, size, mtimeMs } = fs.lstatSync(path.join(folder, name));
    return JSON.stringify({ name, mode, uid, gid, nlink, size, mtimeMs });
  });
}

async function swap(place: MountPlace, outside: string): Promise<void> {
  const child = spawn('/usr/bin/python3', ['-c', swapper, String(someone.uid), place.behind('u'), outside], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
}

/** What somebody does to `x` and `sub`, of all kinds that make or change something. */
const steps: ReadonlyArray<readonly [string, readonly string[], readonly unknown[]]> = [
  ['open', ['x'], [O_RDWR | O_CREAT | O_EXCL, 0o4777, 'made']],
  ['open', ['x'], [O_RDWR | O_CREAT, 0o666, 'made']],
  ['open', ['sub/target'], [O_RDWR | O_CREAT, 0o666, 'made']],
  ['open', ['sub/new'], [O_RDWR | O_CREAT | O_EXCL, 0o4777, 'made']],
  ['changeMode', ['x'], [0o4777]],
  ['changeMode', ['sub/target'], [0o666]],
  ['changeOwner', ['x'], [someone.uid, someone.gid]],
  ['truncate', ['sub/target'], [0]],
  ['times', ['sub/target'], ['then']],
  ['makeFolder', ['x'], [0o777]],
  ['makeFolder', ['sub/folder'], [0o777]],
  ['makeNode', ['sub/node'], [0o100_666, 0]],
  ['symlink', ['sub/symlink'], ['target']],
  ['link', ['sub/target', 'hard'], []],
  ['rename', ['sub/target', 'stolen'], []],
  ['rename', ['x', 'sub/x'], []],
  ['remove', ['sub/target'], []],
  ['removeFolder', ['sub/folder'], []],
  ['setAttribute', ['sub/target'], ['user.x', 'y', 0]],
  ['remove', ['hard'], []],
  ['remove', ['stolen'], []],
];

describe.skipIf(whyNotAsOthers !== undefined)('links that are swapped in', () => {
  describeTransports('meanwhile', (transport) => {
    it(`a user changes nothing outside in ${rounds} rounds`, { timeout: 120_000 + rounds * 60 }, async () => {
      const random = seededTest('links swapped');
      const place = placeForTest();
      const { outside, before } = prepare(place);
      await place.mount(...transport.options);
      const user = new ActingUser(someone);
      onTestFinished(() => user.end());
      await swap(place, outside);
      for (let round = 0; round < rounds; round++) {
        const [call, names, args] = random.pick(steps);
        await user.call(place.under('u'), call, names, args);
        if (round % 16 === 0) expect(stateOf(outside), `round ${round}: ${call}`).toEqual(before);
      }
      expect(stateOf(outside)).toEqual(before);
      expect(place.servers()).toHaveLength(1);
    });

    it('a folder that became a link after it was looked up leads nowhere', async () => {
      const place = placeForTest();
      const { outside, before } = prepare(place);
      await place.mount(...transport.options);
      const user = new ActingUser(someone);
      onTestFinished(() => user.end());
      const under = place.under('u');
      await user.call(under, 'list', ['sub']);
      await user.call(place.behind('u'), 'rename', ['sub', 'gone']);
      await user.call(place.behind('u'), 'symlink', ['sub'], [outside]);
      for (const [call, names, args] of steps) await user.call(under, call, names, args);
      expect(stateOf(outside)).toEqual(before);
    });
  });
});
