/**
 * Where a command may put the file that it makes: not where it would take from somebody what he needs and has not named. `--force` is consent to
 * replace a file of the same kind, or a plain disk file; never a plugin file, a guest's writes, or a part of a disk that a plugin file stands for.
 * What is refused is refused before anything is changed.
 */
import * as fs from '../base/fs.ts';
import path from 'node:path';
import { UsageError } from '../base/errors.ts';
import { isSameFile } from '../base/same-file.ts';
import { synthesizeFiles } from '../native/formats.ts';
import { hasReplacement, partOf } from '../plugin/beside.ts';
import { readPluginFile } from '../plugin/plugin-file.ts';
import { ownContentAt } from '../source/own-content.ts';
import { recordOf } from '../replacement/leftovers.ts';
import { pluginFilesOver } from './needed-images.ts';
import { behindMount } from './behind-mount.ts';

export interface Output {
  readonly makes: 'image' | 'disk' | 'plugin file';
  /** Whether what is there may be replaced. */
  readonly force: boolean;
  /** Files that the command reads, and refuses to write by itself. */
  readonly reads?: readonly string[];
}

/** @throws UsageError that says what stands there, and what to do */
export function assertMayPut(given: string, { makes, force, reads = [] }: Output): void {
  const place = behindMount(given);
  if (partOf(path.basename(place)) !== undefined)
    throw new UsageError(`${given}: is a name for what a guest wrote to a disk; choose another name`);
  const whole = diskWithPart(place);
  if (whole !== undefined)
    throw new UsageError(`${given}: is a part of the disk that ${whole} stands for; choose another name`);
  // A plugin file in the place of another has rules of its own for what was written.
  if (makes !== 'plugin file' && hasReplacement(place))
    throw new UsageError(
      `${given}: what a guest wrote to the disk of this name is kept beside it; choose another name, or take it back with veneer image create and remove it first`,
    );
  if (force && !reads.some((file) => isSameFile(file, given))) assertMayReplace(given, place, makes);
}

function assertMayReplace(given: string, place: string, makes: Output['makes']): void {
  if (!fs.existsSync(place)) return;
  const stat = fs.lstatSync(place);
  if (!stat.isFile() || stat.size === 0) return;
  const found = kindOf(place);
  if (found === 'plugin file' && makes !== 'plugin file')
    throw new UsageError(`${given}: is a plugin file, which others may need; choose another name`);
  const record = recordOf(place);
  if (record !== undefined)
    throw new UsageError(
      `${given}: is the disk file of a machine, put in the place of its plugin file (${path.basename(record)}); choose another name, or move it away first`,
    );
  if (makes === 'image' && found !== 'image')
    throw new UsageError(`${given}: is no image, and is not replaced by one; choose another name, or remove it first`);
  if (makes === 'plugin file' && found === 'disk')
    throw new UsageError(
      `${given}: is no plugin file, and is not replaced by one; choose another name, or remove it first`,
    );
  const shownBy = found === 'disk' ? pluginFilesOver(place) : [];
  if (shownBy.length > 0)
    throw new UsageError(
      `${given}: ${shownBy.join(', ')} shows it as a disk; choose another name, or remove that first`,
    );
}

function kindOf(file: string): Output['makes'] {
  return ownContentAt(file) ?? 'disk';
}

/** The plugin file beside a name that makes a file of that name as well: the extent of a flat VMDK. */
function diskWithPart(place: string): string | undefined {
  const name = path.basename(place);
  const whole = path.join(path.dirname(place), name.replace(/-flat(\.[^.]*)?$/, '$1'));
  if (whole === place || !fs.existsSync(whole) || !fs.lstatSync(whole).isFile()) return undefined;
  try {
    if (kindOf(whole) !== 'plugin file') return undefined;
    const files = synthesizeFiles(readPluginFile(whole).native, path.basename(whole));
    return files.some((file) => file.name === name) ? path.basename(whole) : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a file holds only what a guest wrote to a disk: a map beside it says what of it that is. */
export function isKeptPart(given: string): boolean {
  const place = behindMount(given);
  const part = partOf(path.basename(place));
  return part !== undefined && hasReplacement(path.join(path.dirname(place), part.stem));
}
