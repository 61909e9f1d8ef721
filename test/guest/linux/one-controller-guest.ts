/** A guest that was installed for one disk controller, as a bare volume and as a whole disk with its own GRUB and menu. */
import fs from 'node:fs';
import path from 'node:path';
import { createHash } from 'node:crypto';
import { MiB } from '../../../src/base/units.ts';
import { TempFolder } from '../../temp-folder.ts';
import { run } from '../../filesystem/trees.ts';

const cacheDir = path.join(import.meta.dirname, '../../../.cache');
const packagesDir = path.join(cacheDir, 'packages');
const examplesDir = path.join(import.meta.dirname, '../../../examples/guest');
const partitionOffset = 2048 * 512;

interface Facts {
  readonly version: string;
  readonly payloadSha256: string;
}

export interface OneControllerGuest extends Facts {
  readonly volume: string;
  readonly disk: string;
}

/**
 * Builds both files, or finds them built of the same scripts and packages. Takes some seconds, and longer when the packages must be fetched.
 * They are for reading only.
 */
export function buildOneControllerGuest(flavour: 'cloud' | 'generic' = 'cloud'): OneControllerGuest {
  const packages = run('bash', path.join(examplesDir, 'fetch-packages.sh'), flavour, packagesDir);
  const built = path.join(cacheDir, 'guest', `one-controller-${flavour}-${keyOf(packages)}`);
  if (!fs.existsSync(built)) build(flavour, built);
  const facts = JSON.parse(fs.readFileSync(path.join(built, 'facts.json'), 'utf8')) as Facts;
  return { volume: path.join(built, 'volume.raw'), disk: path.join(built, 'disk.raw'), ...facts };
}

/** Changes with anything that the result depends on. */
function keyOf(packages: string): string {
  const hash = createHash('sha256').update(packages);
  const scripts = ['build-guest.sh', 'initramfs-init', path.basename(import.meta.filename)];
  for (const name of scripts) hash.update(fs.readFileSync(path.join(import.meta.dirname, name)));
  return hash
    .update(fs.readFileSync(path.join(examplesDir, 'init')))
    .digest('hex')
    .slice(0, 12);
}

/** Appears whole, whoever else builds it at the same time. */
function build(flavour: string, built: string): void {
  using folder = new TempFolder();
  const guest = buildIn(folder, flavour);
  fs.mkdirSync(path.dirname(built), { recursive: true });
  const beside = fs.mkdtempSync(`${built}-`);
  for (const name of ['volume.raw', 'disk.raw']) run('cp', '--sparse=always', folder.file(name), beside);
  fs.writeFileSync(path.join(beside, 'facts.json'), JSON.stringify(guest));
  try {
    fs.renameSync(beside, built);
  } catch (error) {
    fs.rmSync(beside, { recursive: true });
    if (!fs.existsSync(built)) throw error;
  }
}

function buildIn(folder: TempFolder, flavour: string): Facts {
  const out = folder.file('guest');
  run('bash', path.join(import.meta.dirname, 'build-guest.sh'), flavour, out, packagesDir);
  const root = `${out}/root`;
  const usedMiB = Number(run('du', '-sm', root).split('\t')[0]);
  const volume = blank(folder.file('volume.raw'), (usedMiB + 24) * MiB);
  run('mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0', '-L', 'guest', '-E', 'root_owner=0:0', '-d', root, volume);
  aroundVolume(folder, volume);
  return {
    version: fs.readFileSync(`${out}/version`, 'utf8').trim(),
    payloadSha256: createHash('sha256')
      .update(fs.readFileSync(`${root}/payload.bin`))
      .digest('hex'),
  };
}

/** MBR, GRUB with the prefix of its menu, one partition: what a distribution's installer leaves. */
function aroundVolume(folder: TempFolder, volume: string): void {
  const disk = blank(folder.file('disk.raw'), partitionOffset + fs.statSync(volume).size);
  const script = folder.write('table', `label: dos\nlabel-id: 0x1234abcd\nstart=2048, type=83, bootable\n`);
  run('bash', '-c', 'sfdisk --quiet "$1" <"$2"', 'bash', disk, script);
  const modules = [
    'biosdisk',
    'part_msdos',
    'ext2',
    'normal',
    'configfile',
    'echo',
    'linux',
    'gzio',
    'test',
    'serial',
    'terminal',
  ];
  const core = folder.file('core.img');
  run('grub-mkimage', '--format=i386-pc', '--prefix=(hd0,msdos1)/boot/grub', `--output=${core}`, ...modules);
  const file = fs.openSync(disk, 'r+');
  try {
    const boot = fs.readFileSync('/usr/lib/grub/i386-pc/boot.img').subarray(0, 440);
    // As grub-bios-setup does.
    boot.fill(0x90, 0x66, 0x68);
    fs.writeSync(file, boot, 0, 440, 0);
    fs.writeSync(file, fs.readFileSync(core), 0, undefined, 512);
    fs.writeSync(file, fs.readFileSync(volume), 0, undefined, partitionOffset);
  } finally {
    fs.closeSync(file);
  }
}

function blank(file: string, sizeBytes: number): string {
  fs.writeFileSync(file, '');
  fs.truncateSync(file, sizeBytes);
  return file;
}
