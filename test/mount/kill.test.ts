/**
 * The process that serves is killed under load, while it fills the disk or does not: after the next mount every write that was acknowledged is
 * there. Also those that the kernel took for a complete disk after the process had died.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { createPluginFile } from '../../src/plugin/create.ts';
import { seededTest, soak } from '../seeded.ts';
import { writeUntilKilled } from './acknowledged-writes.ts';
import { diskBytes, readPart, writeGuest } from './guest-disk.ts';
import { placeForTest } from './mounted.ts';

const kills = soak ? 200 : 2;

it(`${kills} kills at random moments lose nothing that was acknowledged`, { timeout: kills * 20_000 }, async () => {
  const random = seededTest('kills under load');
  const place = placeForTest();
  const raw = place.temporary.file('disk.raw');
  await writeGuest(place.folder, raw);
  createPluginFile(place.behind('vm.spi'), place.behind('vm.raw'));
  let expected = await readPart(raw, 0, diskBytes);
  let cutOvers = 0;
  for (let round = 0; round < kills; round++) {
    const filling = round % 2 === 1 ? ['--fill', '--fill-rate', '24M'] : [];
    await place.mount('--transport', round % 4 === 1 ? 'fuse-native' : 'kernel', ...filling);
    const acknowledged = await writeUntilKilled(
      { file: place.under('vm.raw'), sizeBytes: diskBytes },
      `round ${round} ${random.below(2 ** 40)}`,
      async () => {
        await sleep(20 + random.below(400));
        await place.kill();
      },
    );
    for (const { offset, lengthBytes, fill } of acknowledged.complete)
      expected.fill(fill, offset, offset + lengthBytes);
    await place.mount();
    const found = await readPart(place.under('vm.raw'), 0, diskBytes);
    // Of the write that was under way, any part may be there.
    const { pending } = acknowledged;
    if (pending !== undefined)
      found.copy(expected, pending.offset, pending.offset, pending.offset + pending.lengthBytes);
    expect(found.equals(expected), `after kill ${round}, ${acknowledged.complete.length} writes`).toBe(true);
    const isComplete = (await place.status()).fills?.some((fill) => fill.state === 'complete') === true;
    await place.unmount();
    if (!isComplete) continue;
    // It would stay so: begin anew.
    cutOvers++;
    for (const name of ['vm.raw.replacement', 'vm.raw.replacement-map']) fs.rmSync(place.behind(name));
    expected = await readPart(raw, 0, diskBytes);
  }
  console.info(`${kills} kills, ${cutOvers} fills came to their end meanwhile`);
});
