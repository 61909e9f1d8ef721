/**
 * A mount by a user who is not root: fusermount3 mounts and hands the device over a socket. In a mount namespace of its own, where the device
 * is open to everybody as udev leaves it elsewhere.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { expect, it } from 'vitest';
import { run, veneerPath } from '../cli/veneer.ts';
import { TempFolder } from '../temp-folder.ts';
import { writeExpected, writeGuest } from './guest-disk.ts';

const asNobody = 'setpriv --reuid nobody --regid nogroup --clear-groups';

/** $1: a folder with `folder`, `mount` and `home`, and a node of the device to be made; $2: Node; $3: the tool. */
const prologue = `
set -e
cd "$1"
mknod fuse c 10 229
chmod 666 fuse
mount --bind fuse /dev/fuse
trap 'umount -l "$1/mount" 2>/dev/null || true' EXIT
veneer() { ${asNobody} env HOME="$folder/home" XDG_RUNTIME_DIR= "$node" "$tool" "$@"; }
folder=$1 node=$2 tool=$3
`;

const session = `
veneer mount --transport kernel --workers 2 folder mount
grep -F " $1/mount " /proc/self/mountinfo
${asNobody} sha256sum mount/vm.vhdx
${asNobody} sh -c 'echo written >mount/new && cat mount/new'
veneer status mount
veneer unmount mount
! grep -F " $1/mount " /proc/self/mountinfo
`;

/** A mountpoint that is no UTF-8, and in the folder what its user may neither read nor enter. */
const oddSession = `
mount="mount/$(printf 'caf\\351')"
mkdir "$mount" folder/closed
chown nobody:nogroup "$mount"
chmod 000 folder/closed
head -c 9000 /dev/zero >folder/secret
chmod 600 folder/secret
trap 'umount -l "$1/$mount" 2>/dev/null || true' EXIT
veneer mount --transport kernel --workers 2 folder "$mount"
${asNobody} ls -la "$mount"
${asNobody} stat -c '%n has %s bytes' "$mount/secret"
! ${asNobody} cat "$mount/secret" 2>/dev/null
! ${asNobody} sh -c 'echo x >"$1/secret"' sh "$mount" 2>/dev/null
! ${asNobody} ls "$mount/closed" 2>/dev/null
! ${asNobody} stat "$mount/nothing" 2>/dev/null
${asNobody} sha256sum "$mount/vm.vhdx"
veneer status "$mount"
veneer chain list folder || true
veneer unmount "$mount"
! grep -F 'caf' /proc/self/mountinfo
echo all is well
`;

function inNamespace(script: string, ...args: string[]): Parameters<typeof run> {
  return ['unshare', ['--mount', '--propagation', 'private', 'bash', '-c', prologue + script, 'bash', ...args]];
}

function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can become another user, and make a device';
  for (const program of ['unshare', 'setpriv', 'fusermount3']) {
    if (spawnSync(program, ['--version']).error !== undefined) return `${program} is not installed`;
  }
  using folder = new TempFolder();
  fs.chmodSync(folder.path, 0o755);
  const [program, args] = inNamespace(
    `${asNobody} dd if=/dev/fuse count=0 && ${asNobody} "$2" "$3" --version`,
    folder.path,
    process.execPath,
    veneerPath,
  );
  const tried = spawnSync(program, args, { encoding: 'utf8' });
  if (tried.status !== 0)
    return `another user cannot run the tool here: ${tried.stderr.trim().split('\n').at(-1) ?? ''}`;
  return undefined;
}

const reason = whyNot();

it.skipIf(reason !== undefined)(
  `a user who is not root mounts, reads, writes and unmounts${reason === undefined ? '' : ` (skipped: ${reason})`}`,
  async () => {
    using folder = new TempFolder();
    fs.chmodSync(folder.path, 0o755);
    for (const name of ['folder', 'mount', 'home']) fs.mkdirSync(folder.file(name));
    await writeGuest(folder.file('folder'), folder.file('disk.raw'));
    writeExpected(folder.file('folder/vm.vhdx'), folder.file('disk.raw'), folder.file('expected'));
    const expected = createHash('sha256')
      .update(fs.readFileSync(folder.file('expected')))
      .digest('hex');
    spawnSync('chown', ['-R', 'nobody:nogroup', 'folder', 'mount', 'home'], { cwd: folder.path });
    const ran = await run(...inNamespace(session, folder.path, process.execPath, veneerPath));
    expect(ran.status, ran.stdout + ran.stderr).toBe(0);
    const uid = fs.statSync(folder.file('home')).uid;
    expect(ran.stdout).toContain(`user_id=${uid}`);
    expect(ran.stdout).toContain(expected);
    expect(ran.stdout).toMatch(/^written$/m);
    expect(ran.stdout).toMatch(/process \d+, kernel, .*\n {2}2 workers,/);
    expect(fs.readFileSync(folder.file('folder/new'), 'utf8')).toBe('written\n');
    expect(fs.statSync(folder.file('folder/new')).uid).toBe(uid);
  },
);

it.skipIf(reason !== undefined)(
  'what its user may not read is shown, refused and in nobody\u2019s way, also at a mountpoint that is no UTF-8',
  async () => {
    using folder = new TempFolder();
    fs.chmodSync(folder.path, 0o755);
    for (const name of ['folder', 'mount', 'home']) fs.mkdirSync(folder.file(name));
    await writeGuest(folder.file('folder'), folder.file('disk.raw'));
    spawnSync('chown', ['-R', 'nobody:nogroup', 'folder', 'mount', 'home'], { cwd: folder.path });
    const ran = await run(...inNamespace(oddSession, folder.path, process.execPath, veneerPath));
    expect(ran.status, ran.stdout + ran.stderr).toBe(0);
    expect(ran.stdout).toMatch(/secret has 9000 bytes$/m);
    expect(ran.stdout).toMatch(/mount\/caf\\xe9, since/);
    expect(ran.stdout).toMatch(/all is well\n$/);
  },
);
