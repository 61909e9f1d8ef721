/** Where a mount is refused: in one line that says what to do, with nothing mounted and nothing started. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { run, veneerPath, veneerRefuses } from '../cli/veneer.ts';
import { covering } from '../covering.ts';
import { eventually, placeForTest, type MountPlace } from '../mount/mounted.ts';

interface Refused {
  readonly folder: string;
  readonly mountpoint: string;
}

const refusals: ReadonlyArray<readonly [what: string, arrange: (place: MountPlace) => Refused, says: RegExp]> = [
  [
    'a mountpoint that is missing',
    ({ folder, temporary }) => ({ folder, mountpoint: temporary.file('no') }),
    /no: the mountpoint does not exist; create it \(mkdir -p /,
  ],
  [
    'a mountpoint that is a file',
    ({ folder, temporary }) => ({ folder, mountpoint: temporary.write('file', 'x') }),
    /file: the mountpoint is not a folder$/,
  ],
  [
    'a mountpoint that is not empty',
    ({ folder, mountpoint }) => {
      fs.writeFileSync(path.join(mountpoint, 'something'), 'x');
      return { folder, mountpoint };
    },
    /mount: is not empty; choose an empty folder/,
  ],
  [
    'a mountpoint inside the folder',
    ({ folder }) => {
      fs.mkdirSync(path.join(folder, 'a/b'), { recursive: true });
      return { folder, mountpoint: path.join(folder, 'a/b') };
    },
    /lies inside the folder .*; choose a mountpoint elsewhere/,
  ],
  [
    'a mountpoint inside the folder, by way of a link',
    ({ folder, temporary }) => {
      fs.mkdirSync(path.join(folder, 'inside'));
      fs.symlinkSync(path.join(folder, 'inside'), temporary.file('link'));
      return { folder, mountpoint: temporary.file('link') };
    },
    /lies inside the folder/,
  ],
  ['the folder itself', ({ folder }) => ({ folder, mountpoint: `${folder}/../folder/.` }), /lies inside the folder/],
  [
    'a mountpoint that contains the folder',
    ({ mountpoint }) => {
      fs.mkdirSync(path.join(mountpoint, 'images'));
      return { folder: path.join(mountpoint, 'images'), mountpoint };
    },
    /contains the folder .*, which it would hide/,
  ],
  [
    'a folder that is missing',
    ({ mountpoint, temporary }) => ({ folder: temporary.file('no'), mountpoint }),
    /no: the folder does not exist/,
  ],
  [
    'a folder that is a file',
    ({ mountpoint, temporary }) => ({ folder: temporary.write('file', 'x'), mountpoint }),
    /file: the folder is not a folder|file: is not a folder/,
  ],
  [
    'a folder that leads in a circle',
    ({ mountpoint, temporary }) => {
      fs.symlinkSync('circle', temporary.file('circle'));
      return { folder: temporary.file('circle'), mountpoint };
    },
    /circle: the folder cannot be reached: ELOOP/,
  ],
];

/** In a soak each of them with --foreground, too; in `npm test` one. */
const asked = covering(
  refusals.flatMap((refusal) => ['', '--foreground'].map((option) => [option, ...refusal] as const)),
  ([option, what]) => [option, what],
);

it.each(asked)('mount %s: %s is refused', async (option, _what, arrange, says) => {
  const place = placeForTest();
  const { folder, mountpoint } = arrange(place);
  const options = option === '' ? [] : [option];
  expect(await veneerRefuses('mount', ...options, folder, mountpoint)).toMatch(says);
  expect(fs.readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(place.temporary.path);
  await eventually(() => expect(place.servers()).toEqual([]));
});

it.each([
  [['--cache', 'lots'], /--cache: "lots" is not a size/],
  [['--idle', 'soon'], /--idle: "soon" is not a/],
  [['--present', 'iso'], /'iso' is invalid/],
  [['--nonsense'], /unknown option '--nonsense'/],
] as const)('%j is refused', async (options, says) => {
  const place = placeForTest();
  expect(await veneerRefuses('mount', ...options, place.folder, place.mountpoint)).toMatch(says);
  expect(place.isMounted).toBe(false);
  await eventually(() => expect(place.servers()).toEqual([]));
});

it('without /dev/fuse it says what to load', async (ctx) => {
  const place = placeForTest();
  const others = 'mknod -m 666 /dev/null c 1 3 && mknod -m 444 /dev/urandom c 1 9 && mknod -m 666 /dev/zero c 1 5';
  const prepare = `mount -t tmpfs tmpfs /dev && ${others}`;
  const probe = await run('unshare', ['-m', 'sh', '-c', prepare]);
  if (probe.status !== 0) ctx.skip(`no mount namespace of one's own here: ${probe.stderr.trim()}`);
  const tool = [process.execPath, veneerPath, 'mount', place.folder, place.mountpoint];
  const { status, stdout, stderr } = await run('unshare', ['-m', 'sh', '-c', `${prepare} && exec "$@"`, 'sh', ...tool]);
  expect([status, stdout]).toEqual([1, '']);
  expect(stderr).toMatch(/^veneer: \/dev\/fuse: is not there; load the kernel module \(modprobe fuse\)\n$/);
});

it('a user who may not open /dev/fuse is told so', async (ctx) => {
  if ((fs.statSync('/dev/fuse').mode & 0o006) !== 0) ctx.skip('everybody may open /dev/fuse here');
  const place = placeForTest();
  fs.chmodSync(place.temporary.path, 0o755);
  const tool = [process.execPath, veneerPath, 'mount', place.folder, place.mountpoint];
  const home = `HOME=${place.temporary.file('home')}`;
  fs.mkdirSync(place.temporary.file('home'), { mode: 0o777 });
  fs.chownSync(place.temporary.file('home'), 65534, 65534);
  const { status, stderr } = await run('env', [
    '-u',
    'XDG_RUNTIME_DIR',
    home,
    'setpriv',
    '--reuid=65534',
    '--clear-groups',
    ...tool,
  ]);
  expect(status).toBe(1);
  expect(stderr).toMatch(/^veneer: \/dev\/fuse: may not be opened; run as root, or allow it\n$/);
});
