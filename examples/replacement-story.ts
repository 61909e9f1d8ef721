/**
 * A guest that runs from its backup gets a disk of its own while it runs: it boots read-write from the mounted plugin file and works under a
 * checksummed load; the disk is filled behind it, and cut over under that load; after its shutdown the disk file takes the plugin file's place;
 * unmounted, the guest boots from it alone, and finds everything that it wrote.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bootGuest, type Bus } from './guest/boot.ts';
import type { Guest } from './guest/guest.ts';
import { veneer } from './veneer.ts';

export interface ReplacementStory {
  readonly guest: Guest;
  /** With the image behind the plugin file; not mounted. */
  readonly folder: string;
  readonly mountpoint: string;
  readonly pluginName: string;
  /** QEMU's name of its format. */
  readonly format: string;
  readonly mountOptions?: readonly string[];
  readonly bus?: Bus;
  readonly timeoutMs?: number;
  readonly tell: (text: string) => void;
}

interface FillState {
  readonly name: string;
  readonly state: string;
  readonly note: string;
}

const lookEveryMs = 200;
/** Rounds of the guest's load before the fill, and after the cut-over. */
const roundsBefore = 2;
const roundsAfter = 2;

/** @throws Error as soon as anything is not as it should be. Leaves nothing mounted. */
export async function runReplacementStory(story: ReplacementStory): Promise<void> {
  const { guest, folder, mountpoint, pluginName, format, tell } = story;
  const common = { format, snapshot: false, bus: story.bus ?? 'virtio-blk', ...timeOf(story) } as const;
  await veneer('mount', ...(story.mountOptions ?? []), folder, mountpoint);
  const mounted = path.join(mountpoint, pluginName);
  const first = await bootGuest({
    ...common,
    drive: mounted,
    load: async ({ rounds }) => {
      await until(() => rounds() >= roundsBefore);
      tell(`the guest runs from its backup and writes; ${String(rounds())} rounds of its load read back right`);
      await veneer('fill', 'start', mounted);
      await untilComplete(mounted);
      const atCutOver = rounds();
      tell(await veneer('fill', 'status', mounted));
      tell(
        `cut over after ${String(atCutOver)} rounds; the image is not needed any more, and the guest has not noticed`,
      );
      await until(() => rounds() >= atCutOver + roundsAfter);
    },
  });
  requirePayload(first.payloadSha256, guest);
  tell(await veneer('fill', 'verify', mounted));
  tell(await veneer('finalize', mounted));
  await veneer('unmount', mountpoint);
  const second = await bootGuest({ ...common, drive: path.join(folder, pluginName) });
  requirePayload(second.payloadSha256, guest);
  const { loadKept } = second;
  if (loadKept?.isRight !== true) throw new Error('the guest does not find what its load wrote');
  const { size } = fs.statSync(path.join(folder, pluginName));
  tell(
    `with nothing of veneer running the guest boots from ${pluginName}, an ordinary file of ${String(size)} bytes; ${String(loadKept.files)} files of its load are right`,
  );
}

function timeOf({ timeoutMs }: ReplacementStory): { readonly timeoutMs?: number } {
  return timeoutMs === undefined ? {} : { timeoutMs };
}

function requirePayload(found: string, guest: Guest): void {
  if (found !== guest.payloadSha256)
    throw new Error(`the guest read a file with SHA-256 ${found}, which should be ${guest.payloadSha256}`);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(lookEveryMs);
}

async function untilComplete(file: string): Promise<void> {
  for (;;) {
    const states = JSON.parse(await veneer('fill', 'status', '--json', file)) as FillState[];
    if (states.every(({ state }) => state === 'complete')) return;
    const stuck = states.find(({ state }) => state !== 'complete' && state !== 'filling');
    if (stuck !== undefined) throw new Error(`${stuck.name}: the fill is ${stuck.state}: ${stuck.note}`);
    await sleep(lookEveryMs);
  }
}
