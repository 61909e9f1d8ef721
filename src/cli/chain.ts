/** `veneer chain list|prune` */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { Command } from 'commander';
import { describeError, UsageError, VeneerError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { imageFolders, listImages, type FolderImages } from '../backup/read/folder-images.ts';
import { Image } from '../backup/read/image.ts';
import { keptByRules } from '../backup/care/retention.ts';
import { applyPrune, planPrune, type PruneOptions, type PrunePlan, type PruneStep } from '../backup/care/prune.ts';
import { behindMount } from '../mounts/behind-mount.ts';
import { veneerMountpoints } from '../mounts/mountpoint.ts';
import { NeededImages } from '../mounts/needed-images.ts';
import { countOption } from './arguments.ts';
import { chainListJson, chainListSchema } from './image-json.ts';
import { reportProgress } from './progress.ts';
import { say, sayJson, warn } from './output.ts';

export function chainCommand(): Command {
  return new Command('chain')
    .description('the chains of a folder: what they are, and how they are kept short')
    .addCommand(listCommand())
    .addCommand(pruneCommand());
}

function listCommand(): Command {
  return new Command('list')
    .description('the chains of a folder, and of those below it, and their images; needs no key')
    .argument('<folder>')
    .option('--json', 'for programs')
    .action((folder: string, flags: { json?: boolean }) => {
      const found = listTree(folder);
      if (flags.json === true) sayJson(chainListSchema, chainListJson(found));
      else say(...listText(folder, found));
      warn(...found.damaged.map(({ reason }) => `veneer: ${reason}`));
      if (found.damaged.length > 0) process.exitCode = 1;
    });
}

interface PruneFlags {
  readonly keepLast?: number;
  readonly keepDaily?: number;
  readonly keepWeekly?: number;
  readonly keepMonthly?: number;
  readonly maxDepth?: number;
  readonly dryRun?: boolean;
}

const anyCount = { least: 0 };

function pruneCommand(): Command {
  return new Command('prune')
    .description('keep some restore points, and consolidate the others into them; needs no key')
    .argument('<folder>', 'all chains of a folder and of those below it, or one image: its chain')
    .addOption(countOption('--keep-last <count>', 'the newest', anyCount))
    .addOption(countOption('--keep-daily <count>', 'the newest of each of the last days that have one (UTC)', anyCount))
    .addOption(countOption('--keep-weekly <count>', 'the newest of each of the last weeks that have one', anyCount))
    .addOption(countOption('--keep-monthly <count>', 'the newest of each of the last months that have one', anyCount))
    .addOption(
      countOption(
        '--max-depth <count>',
        'make synthetic fulls, so that reading a restore point needs no more images',
        anyCount,
      ),
    )
    .option('--dry-run', 'print the plan and do nothing')
    .action(async (place: string, flags: PruneFlags) => {
      const rules = rulesOf(flags);
      // Refuses rules that keep nothing, once for all folders.
      keptByRules([], rules);
      if (!fs.statSync(place).isDirectory()) {
        const folder = path.dirname(behindMount(place));
        await pruneFolder(folder, folder, { ...rules, chainId: chainIdOf(place) }, flags);
        return;
      }
      for (const folder of foldersWithImages(place)) {
        try {
          await pruneFolder(behindMount(place), folder, rules, flags);
        } catch (error) {
          // One machine's folder keeps nobody from the others.
          if (!(error instanceof VeneerError) || error.code === 'ASSERTION') throw error;
          warn(`veneer: ${describeError(error)}`);
          process.exitCode = 1;
        }
      }
    });
}

/** @param root the folder that was named, and `folder` it or one below it */
async function pruneFolder(root: string, folder: string, rules: PruneOptions, flags: PruneFlags): Promise<void> {
  const needed = new NeededImages(folder);
  const options: PruneOptions = {
    ...rules,
    whyNeeded: (imageId) => needed.why(imageId),
    lookAgain: () => needed.lookAgain(),
  };
  const plans = planPrune(folder, options);
  for (const plan of plans) say(...planText(path.relative(root, folder), plan));
  if (flags.dryRun !== true) await work(folder, plans, options);
}

/** Folders from this one down that hold images; not what mounts show. @throws UsageError when there is none */
function foldersWithImages(given: string): string[] {
  const mountpoints = veneerMountpoints();
  const found = imageFolders(behindMount(given), (folder) => mountpoints.has(folder));
  if (found.length === 0) throw new UsageError(`${given}: holds no images, nor do the folders below it`);
  return found;
}

function listTree(folder: string): FolderImages {
  const all = foldersWithImages(folder).map((one) => listImages(one));
  return { images: all.flatMap(({ images }) => images), damaged: all.flatMap(({ damaged }) => damaged) };
}

async function work(folder: string, plans: readonly PrunePlan[], options: PruneOptions): Promise<void> {
  if (plans.every(({ steps }) => steps.length === 0)) return;
  let current = -1;
  let progress: ReturnType<typeof reportProgress> | undefined;
  try {
    await applyPrune(folder, plans, options, ({ step, steps, doneBytes, totalBytes }) => {
      if (step !== current) {
        progress?.stop();
        progress = reportProgress(`step ${step} of ${steps}`);
        current = step;
      }
      progress?.update(doneBytes, totalBytes);
    });
  } finally {
    progress?.stop();
  }
  say(`${folder}: done`);
}

function rulesOf(flags: PruneFlags): PruneOptions {
  const { keepLast, keepDaily, keepWeekly, keepMonthly, maxDepth } = flags;
  const entries = { last: keepLast, daily: keepDaily, weekly: keepWeekly, monthly: keepMonthly, maxDepth };
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined));
}

function chainIdOf(file: string): string {
  const image = Image.open(file);
  image.close();
  return image.description.chainId;
}

function listText(folder: string, { images }: FolderImages): string[] {
  const root = behindMount(folder);
  const chains = Map.groupBy(images, ({ path: file, description }) => `${path.dirname(file)}/${description.chainId}`);
  return [...chains.values()].flatMap((all) => {
    const [first] = all;
    if (first === undefined) return [];
    const place = path.relative(root, path.dirname(first.path));
    const bytes = all.reduce((sum, { description }) => sum + description.fileSizeBytes, 0);
    const sealed = first.description.sealed ? ', encrypted' : '';
    const rows = all
      .sort((a, b) => b.description.sequence - a.description.sequence)
      .map(({ path: file, description, sources }) => {
        const made = description.kind === 'consolidated' ? ` of ${sources.length}` : '';
        return `  ${String(description.sequence).padEnd(5)} ${path.basename(file)}: ${description.kind}${made}, ${description.createdAt.toISOString()}, ${formatBytes(description.fileSizeBytes)}`;
      });
    const { chainId } = first.description;
    return [`chain ${chainId}${placeText(place)}: ${all.length} images, ${formatBytes(bytes)}${sealed}`, ...rows];
  });
}

function planText(place: string, { chainId, kept, wrongTimes, steps, depthBefore, depthAfter }: PrunePlan): string[] {
  const rows = kept.map(
    ({ image, reason }) =>
      `  stays    ${path.basename(image.path)}, ${image.description.createdAt.toISOString()} (${reason})`,
  );
  const wrong = wrongTimes.map(
    ({ image, countedAs }) =>
      `  ! ${path.basename(image.path)} says ${image.description.createdAt.toISOString()}, against the order of its chain; it counts as of ${countedAs.toISOString()}`,
  );
  const depth = depthBefore === depthAfter ? `depth ${depthBefore}` : `depth ${depthBefore}, then ${depthAfter}`;
  const none = steps.length === 0 ? ['  nothing is to be done'] : [];
  return [`chain ${chainId}${placeText(place)}: ${depth}`, ...wrong, ...rows, ...steps.map(stepText), ...none];
}

/** @param place of a folder below the one that was named; '' for that one */
function placeText(place: string): string {
  return place === '' ? '' : ` in ${place}`;
}

function stepText(step: PruneStep): string {
  const names = (images: readonly { readonly path: string }[]): string =>
    images.map((image) => path.basename(image.path)).join(', ');
  if (step.kind === 'remove') return `  removed  ${names(step.images)}`;
  const bytes = step.images.reduce((sum, { description }) => sum + description.storedBytes, 0);
  const [target, ...others] = step.images;
  const stay =
    step.remove.length < others.length
      ? `; of these stay ${names(others.filter((image) => !step.remove.includes(image)))}`
      : '';
  return `  one of   ${target === undefined ? '' : path.basename(target.path)} and ${names(others)}, at most ${formatBytes(bytes)}${stay}`;
}
