/** Time until the example guest says that it is up: from the VHDX under our mount, and from the raw disk file itself. */
import fs from 'node:fs';
import path from 'node:path';
import { bootGuest, probeAccelerator } from '../examples/guest/boot.ts';
import { buildGuestDisk } from '../examples/guest/guest.ts';
import { veneer } from './contenders.ts';
import type { BenchContext } from './context.ts';
import { dropPages, warmPages } from './page-cache.ts';
import { markdownTable, ratioOf, ratioText, significant, spreadOf } from './table.ts';

interface Candidate {
  readonly name: string;
  readonly boot: () => Promise<number>;
  readonly readyMs: number[];
}

export async function benchBoot(context: BenchContext): Promise<string> {
  const { accelerator, reason } = await probeAccelerator();
  context.say(`building the guest; ${accelerator}: ${reason}`);
  const guest = await buildGuestDisk({
    flavour: 'cloud',
    cacheDir: path.join(context.folder, '..', 'packages'),
    outDir: path.join(context.folder, 'guest'),
  });
  const boot = async (drive: string, format: string): Promise<number> => {
    const report = await bootGuest({ drive, format, accelerator, signal: context.signal });
    if (report.payloadSha256 !== guest.payloadSha256) throw new Error(`${drive}: the guest read wrong bytes`);
    return report.readyAfterMs;
  };
  const raw: Candidate = {
    name: 'raw disk file',
    readyMs: [],
    boot: async () => {
      warmPages(guest.diskPath);
      return await boot(guest.diskPath, 'raw');
    },
  };
  const candidates = [raw];
  for (const transport of context.transports) {
    const contender = await veneer(context, guest.diskPath, 'zstd', transport, []);
    candidates.push({
      name: `VHDX under the mount, ${transport}`,
      readyMs: [],
      // A new server each time: nothing is cached but the stored image.
      boot: async () => {
        await using served = await contender.start();
        warmPages(served.backing);
        await dropPages(served.target.file);
        return await boot(served.target.file, 'vhdx');
      },
    });
  }
  for (let round = 1; round <= context.rounds; round++) {
    for (const { name, boot: bootOnce, readyMs } of candidates) {
      context.say(`boot: round ${round} of ${context.rounds}, ${name}`);
      readyMs.push(await bootOnce());
    }
  }
  const rows = candidates.map(({ name, readyMs }) => {
    const { low, median, high } = spreadOf(readyMs.map((ms) => ms / 1000));
    return [
      name,
      `${significant(median)} (${significant(low)} to ${significant(high)})`,
      name === raw.name ? '' : ratioText(ratioOf(readyMs, raw.readyMs)),
    ];
  });
  return [
    `QEMU with ${accelerator} (${reason}); a disk of ${Math.round(guest.diskBytes / 2 ** 20)} MiB, ${Math.round(fs.statSync(guest.diskPath).blocks / 2048)} MiB of them data. Stored files are in the page cache; the mount's own pages are not, and its server is new each time.`,
    markdownTable(['', 'seconds until ready (quartiles)', 'times the raw file'], rows),
  ].join('\n\n');
}
