/**
 * Run by a test in a process of its own, since it reads a mount as a hypervisor does, and may so be kept waiting: random things happen to a
 * mounted disk, and after each incremental image of it, on whatever parent, `image extract` of that image must give the bytes that QEMU
 * reads under the mount at the same time. Prints each step; the last line says how many there were, and how many images.
 *
 * argv: the folder, the mountpoint, a folder for other files, the seed, the number of steps.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { KiB, MiB } from '../../src/base/units.ts';
import { consolidateChain } from '../../src/backup/care/consolidate-chain.ts';
import { createImage } from '../../src/backup/write/create.ts';
import { openChainDisk } from '../../src/backup/read/chain.ts';
import { imageCommand } from '../../src/cli/image.ts';
import { describePatchSet, patchSetPath } from '../../src/plugin/patch-set-file.ts';
import { createPluginFile } from '../../src/plugin/create.ts';
import { encodePluginFile, readPluginFile, sourceIdsOf } from '../../src/plugin/plugin-file.ts';
import { encodePatchSet } from '../../src/guest/patch-set.ts';
import { fallocate, fallocateMode } from '../../src/base/fallocate.ts';
import { veneerPath } from '../cli/veneer.ts';
import { Seeded } from '../seeded.ts';

const [folder = '', mountpoint = '', temporary = '', seed = '', steps = '0'] = process.argv.slice(2);
const random = new Seeded(seed);
const baseBytes = 3 * MiB + 64 * KiB + 512;
const formats = [
  { name: 'vm.raw', qemu: 'raw', layout: 'flat' },
  { name: 'vm.raw', qemu: 'raw', layout: 'flat' },
  { name: 'vm.qcow2', qemu: 'qcow2', layout: 'compact' },
  { name: 'vm.qcow2', qemu: 'qcow2', layout: 'full' },
  { name: 'vm.vmdk', qemu: 'vmdk', layout: 'flat' },
  { name: 'vm.vmdk', qemu: 'vmdk', layout: 'sparse' },
  { name: 'vm.vdi', qemu: 'vdi', layout: 'dynamic' },
  { name: 'vm.vhd', qemu: 'vpc', layout: 'fixed' },
  { name: 'vm.vhd', qemu: 'vpc', layout: 'dynamic' },
  { name: 'vm.vhdx', qemu: 'vhdx', layout: 'dynamic' },
] as const;

let format: (typeof formats)[number] = formats[0];
let isMounted = false;
let isFinalized = false;
let mode: 'intercept' | 'discard' = 'intercept';
let number = 0;
let images = 0;
let snapshots: string[] = [];

const behind = (name: string): string => path.join(folder, name);
const under = (name: string): string => path.join(mountpoint, name);
const say = (text: string): void => void fs.writeSync(1, `${text}\n`);

function run(program: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { timeout: 300_000, killSignal: 'SIGKILL' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${String(stderr)}`);
  return stdout.toString();
}

const tool = (...args: string[]): string => run(process.execPath, [veneerPath, ...args]);

/** A command of the tool, in this process. */
async function image(...args: string[]): Promise<void> {
  const command = imageCommand();
  for (const one of [command, ...command.commands]) one.exitOverride().configureOutput({ writeErr: () => undefined });
  // What it says is not told apart from what is said here.
  const streams = [process.stdout, process.stderr];
  const writes = streams.map((stream) => stream.write.bind(stream));
  for (const stream of streams) stream.write = () => true;
  try {
    await command.parseAsync(args, { from: 'user' });
  } finally {
    for (const [index, stream] of streams.entries()) {
      const write = writes[index];
      if (write !== undefined) stream.write = write;
    }
  }
}

function mount(): void {
  mode = !isFinalized && random.oneIn(5) ? 'discard' : 'intercept';
  const transport = random.oneIn(3) ? 'fuse-native' : 'kernel';
  say(`mount with ${transport}, ${mode}`);
  tool('mount', '--transport', transport, '--write', mode, folder, mountpoint);
  isMounted = true;
}

function unmount(): void {
  if (isMounted) tool('unmount', mountpoint);
  isMounted = false;
}

/** A machine is restored: a plugin file of any format on any point. */
function branch(): void {
  unmount();
  for (const name of fs.readdirSync(folder)) if (!/\.sp[fi]$/.test(name)) fs.rmSync(behind(name));
  format = random.pick(formats);
  const from = random.pick(snapshots);
  say(`plugin ${format.name} (${format.layout}) on ${path.basename(from)}`);
  createPluginFile(from, behind(format.name), { layout: format.layout });
  isFinalized = false;
  mount();
}

/** As reconfiguring does it: some bytes of the disk read otherwise. */
function patch(): void {
  if (isFinalized || fs.readdirSync(folder).some((name) => name.includes('.replacement'))) return;
  const pluginPath = behind(format.name);
  const plugin = readPluginFile(pluginPath);
  if (!['flat', 'fixed', 'full'].includes(format.layout)) return;
  unmount();
  const offsetBytes = random.below(plugin.disk.sizeBytes - 8 * KiB);
  const after = random.bytes(random.between(1, 8 * KiB));
  const before = Buffer.alloc(after.length);
  {
    const disk = openChainDisk(path.join(folder, plugin.source.path));
    disk.read(before, offsetBytes);
    disk.close();
  }
  say(`patch set of ${after.length} bytes at ${offsetBytes}`);
  const contents = encodePatchSet({
    target: 'qemu',
    images: [{ imageId: sourceIdsOf(plugin)[0] ?? '', sizeBytes: plugin.disk.sizeBytes }],
    guest: {},
    changes: [],
    warnings: [],
    patches: [{ image: 0, offsetBytes, before, after }],
  });
  fs.writeFileSync(patchSetPath(pluginPath, 'qemu'), contents);
  fs.writeFileSync(
    pluginPath,
    encodePluginFile({ ...plugin, target: 'qemu', patchSets: [describePatchSet(pluginPath, 'qemu', contents)] }),
  );
  mount();
}

/** Inside the disk: aligned to something or not. */
function range(): { offset: number; length: number } {
  const size = diskBytes();
  const alignment = random.pick([64 * KiB, 4 * KiB, 512]);
  const offset = Math.floor(random.below(size) / alignment) * alignment;
  const length = Math.max(512, Math.floor(random.between(1, random.oneIn(3) ? 256 * KiB : 9 * KiB) / 512) * 512);
  return { offset, length: Math.min(length, Math.floor((size - offset) / 512) * 512) };
}

function diskBytes(): number {
  const described: unknown = JSON.parse(
    run('qemu-img', ['info', '-U', '--output=json', '-f', format.qemu, under(format.name)]),
  );
  return (described as Record<string, number>)['virtual-size'] ?? 0;
}

function qemuIo(command: string): void {
  const file = `file.driver=file,file.discard=unmap,file.filename=${under(format.name)}`;
  say(command);
  const said = run('qemu-io', ['--image-opts', `driver=${format.qemu},discard=unmap,${file}`, '-c', command]);
  if (/fail|error/i.test(said) && !/Operation not supported/.test(said)) throw new Error(said);
}

function write(): void {
  const { offset, length } = range();
  if (length >= 512) qemuIo(`write -P ${random.between(1, 255)} ${offset} ${length}`);
}

function discard(): void {
  const { offset, length } = range();
  if (length >= 512) qemuIo(`${random.pick(['write -z', 'write -z -u', 'discard'])} ${offset} ${length}`);
}

/** Only what a file's own length, or QEMU, can change. */
function resize(): void {
  const now = diskBytes();
  const sectors = Math.floor(random.between(Math.max(MiB, now - 700 * KiB), Math.min(5 * MiB, now + 700 * KiB)) / 512);
  if (format.qemu === 'qcow2') {
    say(`qemu-img resize to ${sectors * 512}`);
    run('qemu-img', ['resize', '--shrink', '-f', 'qcow2', under(format.name), String(sectors * 512)]);
  } else if (format.qemu === 'raw') {
    say(`truncate to ${sectors * 512}`);
    fs.truncateSync(under(format.name), sectors * 512);
  } else if (format.layout === 'flat') {
    say('cut the extent, and let it grow again');
    const { size } = fs.statSync(under('vm-flat.vmdk'));
    fs.truncateSync(under('vm-flat.vmdk'), Math.floor(size / 2) + 512);
    fs.truncateSync(under('vm-flat.vmdk'), size);
  }
}

/** What only a raw file can be asked for: to grow by a write, or by room that is asked for, and a hole anywhere. */
function stretch(): void {
  if (format.qemu !== 'raw') return;
  const { size } = fs.statSync(under(format.name));
  const fd = fs.openSync(under(format.name), 'r+');
  try {
    if (size < 5 * MiB && random.oneIn(2)) {
      say('write behind the end, a hole in it, and room behind that');
      fs.writeSync(fd, random.bytes(100 * KiB), 0, 100 * KiB, size);
      const punch = (at: number, length: number): number =>
        fallocate(fd, fallocateMode.keepSize | fallocateMode.punchHole, at, length);
      // Of one transport.
      if (punch(size + 4096, 4096) === 0) fallocate(fd, 0, size + 100 * KiB, 512);
    } else {
      say('bytes that are no sectors');
      fs.writeSync(fd, random.bytes(777), 0, 777, Math.max(0, random.below(size) - 777));
    }
  } finally {
    fs.closeSync(fd);
  }
}

async function fill(): Promise<void> {
  if (isFinalized || mode === 'discard') return;
  say('fill');
  tool('fill', 'start', '--no-polite', under(format.name));
  for (let tries = 0; ; tries++) {
    const statuses = JSON.parse(tool('fill', 'status', '--json', under(format.name))) as { state: string }[];
    if (statuses.every(({ state }) => state === 'complete')) break;
    if (tries === 600) throw new Error(`the fill does not end: ${JSON.stringify(statuses)}`);
    await sleep(100);
  }
  if (!random.oneIn(3)) return;
  say('finalize');
  tool('finalize', under(format.name));
  isFinalized = true;
}

/** Any image that is there is a parent that is allowed. */
async function create(): Promise<void> {
  const parent = random.oneIn(3) ? random.pick(snapshots) : (snapshots.at(-1) ?? '');
  const made = behind(`${number}.spi`);
  say(`create ${number}.spi on ${path.basename(parent)}`);
  await image('create', under(format.name), made, '--parent', parent);
  const back = path.join(temporary, 'back.raw');
  await image('extract', made, back, '--force');
  expectSame(back);
  images++;
  snapshots.push(made);
  if (snapshots.length > 12) snapshots = snapshots.slice(-12);
}

/** What a reader of the mount reads, by QEMU. Its own idea of how long a VHD is may be another: no byte of that is data. */
function expectSame(back: string): void {
  const now = path.join(temporary, 'now.raw');
  run('qemu-img', ['convert', '-U', '-f', format.qemu, '-O', 'raw', under(format.name), now]);
  const [found, wanted] = [fs.readFileSync(back), fs.readFileSync(now)];
  const isVhd = format.qemu === 'vpc';
  if (!isVhd && found.length !== wanted.length)
    throw new Error(`the image is of ${found.length} bytes, the disk of ${wanted.length}`);
  const length = Math.min(found.length, wanted.length);
  const at = found.subarray(0, length).compare(wanted.subarray(0, length)) === 0 ? -1 : firstDifference(found, wanted);
  if (at >= 0) throw new Error(`the image differs from what the mount reads, at byte ${at}`);
  fs.rmSync(back);
}

function firstDifference(one: Buffer, other: Buffer): number {
  return one.findIndex((byte, index) => byte !== other[index]);
}

async function consolidate(): Promise<void> {
  const newest = random.pick(snapshots);
  const chain = openChainDisk(newest);
  const sequences = chain.images.map(({ description }) => description.sequence);
  chain.close();
  const from = random.pick(sequences);
  if (sequences.filter((sequence) => sequence >= from).length < 2) return;
  say(`consolidate ${path.basename(newest)} from ${from}`);
  const made = behind(`${number}-consolidated.spi`);
  await consolidateChain([newest], made, { from });
  snapshots[snapshots.indexOf(newest)] = made;
}

async function step(): Promise<void> {
  const dice = random.below(100);
  if (dice < 28) write();
  else if (dice < 46) discard();
  else if (dice < 53) resize();
  else if (dice < 59) stretch();
  else if (dice < 62) await fill();
  else if (dice < 66) {
    unmount();
    mount();
  } else if (dice < 70) branch();
  else if (dice < 72) patch();
  else if (dice < 74) await consolidate();
  else await create();
}

const source = path.join(temporary, 'source.raw');
fs.writeFileSync(source, '');
fs.truncateSync(source, baseBytes);
const fd = fs.openSync(source, 'r+');
for (let at = 0; at < baseBytes; at += 64 * KiB)
  if (!random.oneIn(3)) fs.writeSync(fd, random.bytes(Math.min(64 * KiB, baseBytes - at)), 0, undefined, at);
fs.closeSync(fd);
await createImage(source, behind('full.spf'), { blockBytes: 16 * KiB });
snapshots.push(behind('full.spf'));
branch();
for (; number < Number(steps); number++) {
  say(`step ${number}`);
  await step();
}
unmount();
say(`${number} steps, ${images} images`);
