/** `veneer image create|info|verify|extract` */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { Command, Option } from 'commander';
import { UsageError } from '../base/errors.ts';
import { closing } from '../base/ownership.ts';
import { formatBytes } from '../base/units.ts';
import { parseChangedRanges } from '../backup/write/changed-ranges.ts';
import { openChainDisk } from '../backup/read/chain.ts';
import { consolidateChain } from '../backup/care/consolidate-chain.ts';
import { createImage, type CreateOptions } from '../backup/write/create.ts';
import { extractImage } from '../backup/read/extract.ts';
import { describeChain, type ChainDescription } from '../backup/read/info.ts';
import { KeyRing } from '../backup/crypto/key-ring.ts';
import { codecs, type Codec } from '../backup/format/layout.ts';
import { verifyChain } from '../backup/care/verify.ts';
import { changedSince } from '../mount/changed-since.ts';
import { NeededImages } from '../mounts/needed-images.ts';
import { assertMayPut, isKeptPart } from '../mounts/output-place.ts';
import { writtenSource } from '../mount/written-ranges.ts';
import { formatNames, formatOfName, type FormatName } from '../native/formats.ts';
import { extractNative } from '../plugin/extract.ts';
import { sourceFormatNames } from '../source/formats.ts';
import { nativeSource } from '../source/open-source.ts';
import { bytesOption, countOption } from './arguments.ts';
import { credentialsOf, keysFor, newCredential, withKeyOptions, type KeyFlags } from './keys.ts';
import { imageInfoSchema } from './image-json.ts';
import { reportProgress } from './progress.ts';
import { say, sayJson, warn } from './output.ts';

export function imageCommand(): Command {
  return new Command('image')
    .description('make, describe, verify and extract image backups')
    .addCommand(createCommand())
    .addCommand(infoCommand())
    .addCommand(verifyCommand())
    .addCommand(scrubCommand())
    .addCommand(consolidateCommand())
    .addCommand(extractCommand());
}

/** Far more than help, and few enough to start. */
const maxThreads = 256;

interface CreateFlags extends KeyFlags {
  readonly encrypt?: boolean;
  readonly codec?: Codec;
  readonly blockSize?: number;
  readonly volume?: boolean;
  readonly parent?: string;
  readonly changed?: string;
  readonly force?: boolean;
  readonly threads?: number;
  readonly sourceFormat?: string;
}

function createCommand(): Command {
  return withKeyOptions(new Command('create'))
    .description('make an image of a disk')
    .argument(
      '<source>',
      'raw file, block device, or VHDX, VHD, VMDK, VDI, qcow2 or QED file, or the first part (.001) of a raw disk that was split',
    )
    .argument('<image>', 'the image to make: .spf for a full one, .spi for an incremental')
    .addOption(
      new Option('--codec <name>', 'how blocks are compressed (default: zstd, or as the parent)').choices(codecs),
    )
    .addOption(bytesOption('--block-size <size>', '16K to 1M; one for a whole chain (default: 64K)'))
    .option('--volume', 'the source is a single volume, not a whole disk')
    .option('--parent <image>', 'make an incremental of what differs from this image and its parents')
    .option('--changed <file>', 'JSON array of {offset, length}: read only these ranges of the source')
    .addOption(
      countOption('--threads <count>', 'threads that compress (default: one for each core)', {
        least: 1,
        most: maxThreads,
      }),
    )
    .addOption(
      new Option('--source-format <name>', 'what the source is, whatever its name and its content say').choices(
        sourceFormatNames,
      ),
    )
    .option('--encrypt', 'seal every block; the key or passphrase given here opens the chain from now on')
    .option('--force', 'replace the image if it exists')
    .action(async (source: string, image: string, flags: CreateFlags) => {
      assertNameFits(image, flags.parent !== undefined);
      assertMayPut(image, { makes: 'image', force: flags.force === true, reads: [source] });
      if (isKeptPart(source))
        throw new UsageError(
          `${source}: holds only what a guest wrote to a disk; image the disk itself, under the mount`,
        );
      const needed = new NeededImages(path.dirname(image));
      const keys = await keysForCreation(flags);
      const progress = reportProgress('creating');
      const startMs = performance.now();
      try {
        const mounted = mountedOptions(source, flags, keys.keys);
        const made = await createImage(source, image, {
          ...(flags.codec === undefined ? {} : { codec: flags.codec }),
          ...(flags.blockSize === undefined ? {} : { blockBytes: flags.blockSize }),
          ...(flags.volume === undefined ? {} : { content: 'volume' }),
          ...(flags.parent === undefined ? {} : { parent: flags.parent }),
          ...(flags.changed === undefined ? {} : { changed: readRanges(flags.changed) }),
          ...(flags.threads === undefined ? {} : { threads: flags.threads }),
          ...(flags.force === undefined ? {} : { force: flags.force }),
          ...(flags.sourceFormat === undefined ? {} : { sourceFormat: flags.sourceFormat }),
          ...keys,
          ...mounted,
          whyNeeded: ({ imageId }) => needed.why(imageId),
          source: nativeSource,
          onProgress: ({ doneBytes, totalBytes }) => progress.update(doneBytes, totalBytes),
        });
        progress.stop();
        const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
        say(
          `${image}: ${made.kind} image of ${formatBytes(made.sourceSizeBytes)}, ${made.dataBlocks} blocks in ${formatBytes(made.fileSizeBytes)}, ${seconds} s`,
        );
      } finally {
        progress.stop();
      }
    });
}

/** @throws UsageError when a full image is called as incrementals are, or the other way round */
function assertNameFits(image: string, isIncremental: boolean): void {
  if (isIncremental && /\.spf$/i.test(image))
    throw new UsageError(`${image}: .spf is for full images, and with --parent this is an incremental; call it .spi`);
  if (!isIncremental && /\.spi$/i.test(image))
    throw new UsageError(
      `${image}: .spi is for incrementals, and without --parent this is a full image; call it .spf, or name the parent`,
    );
}

/** Of a full image the key that is to open it, of an incremental the one that opens its parent. */
async function keysForCreation(flags: CreateFlags): Promise<Pick<CreateOptions, 'encrypt' | 'keys'>> {
  if (flags.parent !== undefined) {
    if (flags.encrypt === true)
      throw new UsageError('--encrypt: an incremental is encrypted as its parent is; leave it out');
    const keys = await keysFor(flags.parent, flags);
    using parent = closing(openChainDisk(flags.parent, undefined, undefined, keys));
    parent.value.requireKey();
    return { keys };
  }
  if (flags.encrypt === true) return { encrypt: await newCredential(flags) };
  if ((await credentialsOf(flags)).length > 0)
    throw new UsageError('a key was given, and nothing is to be encrypted; add --encrypt, or leave the key out');
  return {};
}

function infoCommand(): Command {
  return withKeyOptions(new Command('info'))
    .description('describe an image and its chain')
    .argument('<image>')
    .option('--json', 'for programs')
    .action(async (image: string, flags: KeyFlags & { json?: boolean }) => {
      const credentials = await credentialsOf(flags);
      if (credentials.length > 0) assertOpens(image, new KeyRing({ credentials, chains: [] }));
      const chain = describeChain(image);
      if (flags.json === true) sayJson(imageInfoSchema, chain);
      else say(...chainText(chain));
    });
}

/** Whether the key is the right one is all that it adds: what is told of an image is not sealed. */
function assertOpens(image: string, keys: KeyRing): void {
  using disk = closing(openChainDisk(image, undefined, undefined, keys));
  disk.value.requireKey();
}

function verifyCommand(): Command {
  return withKeyOptions(new Command('verify'))
    .description('check all that is stored in an image and its parents, with the key also that nothing was exchanged')
    .argument('<image>')
    .action(async (image: string, flags: KeyFlags) => {
      report(image, 'verifying', await keysFor(image, flags));
    });
}

function scrubCommand(): Command {
  return new Command('scrub')
    .description('check every stored checksum of an image and its parents; needs no key')
    .argument('<image>')
    .action((image: string) => report(image, 'scrubbing', undefined));
}

function report(image: string, action: string, keys: KeyRing | undefined): void {
  const progress = reportProgress(action);
  const result = verifyChain(image, {
    ...(keys === undefined ? {} : { keys }),
    onFault: (fault) => say(`${fault.structure}: ${fault.message}`),
    onProgress: (doneBytes, totalBytes) => progress.update(doneBytes, totalBytes),
  });
  progress.stop();
  const what = `${result.images} image${result.images === 1 ? '' : 's'}, ${result.blocks} blocks, ${formatBytes(result.storedBytes)}`;
  if (result.faults === 0) {
    say(`${image}: sound${result.proved ? ', all of it sealed and in place' : ''} (${what})`);
  } else {
    warn(`veneer: ${image}: ${result.faults} damaged (${what}); the lines above name them`);
    process.exitCode = 1;
  }
}

interface ConsolidateFlags {
  readonly from?: number;
  readonly to?: number;
  readonly replace?: boolean;
  readonly force?: boolean;
}

function consolidateCommand(): Command {
  return new Command('consolidate')
    .description('make one image of several of a chain; needs no key')
    .argument('<images...>', 'the newest image of a chain, or the images to take; then OUT, the image to make')
    .addOption(countOption('--from <number>', 'the oldest image to take, as image info numbers them', { least: 0 }))
    .addOption(countOption('--to <number>', 'the newest image to take', { least: 0 }))
    .option(
      '--replace',
      'check the result, and remove the images that it takes the place of; OUT may be the newest of them',
    )
    .option('--force', 'replace OUT if it exists')
    .action(async (paths: string[], flags: ConsolidateFlags) => {
      const out = paths.at(-1);
      if (out === undefined || paths.length < 2)
        throw new UsageError('name the images to consolidate, then the image to make');
      assertMayPut(out, { makes: 'image', force: flags.force === true, reads: paths.slice(0, -1) });
      const needed = new NeededImages(path.dirname(out));
      const progress = reportProgress('consolidating');
      try {
        const done = await consolidateChain(paths.slice(0, -1), out, {
          ...(flags.from === undefined ? {} : { from: flags.from }),
          ...(flags.to === undefined ? {} : { to: flags.to }),
          ...(flags.replace === undefined ? {} : { replace: flags.replace }),
          ...(flags.force === undefined ? {} : { force: flags.force }),
          whyNeeded: ({ imageId }) => needed.why(imageId),
          onProgress: (doneBytes, totalBytes) => progress.update(doneBytes, totalBytes),
        });
        progress.stop();
        const { made, taken, removed } = done;
        const removal = removed === 0 ? '' : `, ${removed} removed`;
        say(
          `${out}: ${taken} images in one, ${made.dataBlocks} blocks in ${formatBytes(made.fileSizeBytes)}${removal}`,
        );
      } finally {
        progress.stop();
      }
    });
}

interface ExtractFlags extends KeyFlags {
  readonly format?: FormatName;
  readonly layout?: string;
  readonly force?: boolean;
  readonly yes?: boolean;
}

function extractCommand(): Command {
  return withKeyOptions(new Command('extract'))
    .description('write the disk as of an image to a file (raw, or any other disk format) or over a block device')
    .argument('<image>')
    .argument('<out>', 'sparse raw file to make, or a disk file of --format, or a block device')
    .addOption(new Option('--format <name>', 'default: by the extension of OUT, else raw').choices(formatNames))
    .option('--layout <name>', 'of the format, as for plugin create')
    .option('--force', 'replace the file if it exists')
    .option('--yes', 'write over the block device; what lies behind the end of the disk stays')
    .action(async (image: string, out: string, flags: ExtractFlags) => {
      assertMayPut(out, { makes: 'disk', force: flags.force === true });
      const keys = await keysFor(image, flags);
      const progress = reportProgress('extracting');
      const format = flags.format ?? formatOfName(out) ?? 'raw';
      const options = {
        keys,
        ...(flags.force === undefined ? {} : { force: flags.force }),
        ...(flags.layout === undefined ? {} : { layout: flags.layout }),
        ...(flags.yes === undefined ? {} : { mayOverwriteDevice: flags.yes }),
        onProgress: (doneBytes: number, totalBytes: number) => progress.update(doneBytes, totalBytes),
      };
      try {
        const result =
          format === 'raw' ? extractImage(image, out, options) : extractNative(image, out, format, options);
        progress.stop();
        const { sizeBytes, writtenBytes, behindBytes } = result;
        const behind = behindBytes === 0 ? '' : `; the ${formatBytes(behindBytes ?? 0)} behind them are as they were`;
        const device = behindBytes === undefined ? '' : `, written over the device and read back${behind}`;
        say(`${out}: ${formatBytes(sizeBytes)}, of which ${formatBytes(writtenBytes)} data${device}`);
      } finally {
        progress.stop();
      }
    });
}

/** Of a native file under a mount, an incremental reads only what may differ from the parent, where that is known. */
function mountedOptions(
  source: string,
  flags: CreateFlags,
  keys: KeyRing | undefined,
): Pick<CreateOptions, 'changed' | 'sourceFormat' | 'steadyBytes'> {
  const written = writtenSource(source, keys);
  if (written === undefined) return {};
  const { plugin, sizeBytes } = written;
  // Asked for as something else, it is another disk than the one that is told of.
  if (flags.sourceFormat !== undefined && flags.sourceFormat !== plugin.native.format) return {};
  const steady = { sourceFormat: plugin.native.format, steadyBytes: sizeBytes };
  if (flags.parent === undefined || flags.changed !== undefined) return steady;
  const changed = changedSince(written, flags.parent, keys);
  if (changed === undefined) {
    warn(`${source}: what was written since ${flags.parent} is not known; all of it is compared`);
    return steady;
  }
  const bytes = changed.reduce((sum, range) => sum + range.length, 0);
  warn(`${source}: ${formatBytes(bytes)} may have been written since ${flags.parent}; the rest is not read`);
  return { ...steady, changed };
}

function readRanges(file: string): ReturnType<typeof parseChangedRanges> {
  return parseChangedRanges(fs.readFileSync(file, 'utf8'), file);
}

function chainText(chain: ChainDescription): string[] {
  const newest = chain.images[0];
  if (newest === undefined) return [];
  const rows = [
    [
      'disk',
      `${formatBytes(chain.diskBytes)} (${chain.diskBytes} bytes), a ${newest.content}, sectors of ${newest.logicalSectorBytes} bytes`,
    ],
    ['blocks', `${formatBytes(newest.blockBytes)} each, ${newest.codec}${newest.sealed ? ', encrypted' : ''}`],
    ['image', newest.imageId],
    [
      'chain',
      `${newest.chainId}, ${chain.images.length} image${chain.images.length === 1 ? '' : 's'}, ${formatBytes(chain.storedBytes)} stored`,
    ],
    ...chain.images.map((image) => [
      `  ${image.sequence}`,
      `${image.file}: ${image.kind}, ${image.createdAt}, ${image.dataBlocks} data and ${image.zeroBlocks} zero blocks, ${formatBytes(image.fileSizeBytes)}`,
    ]),
  ];
  return rows.map(([name, value]) => `${(name ?? '').padEnd(8)}${value ?? ''}`);
}
