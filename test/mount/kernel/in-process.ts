/** The kernel transport served by this very process, for what no option of the tool reaches. */
import fs from 'node:fs';
import { noKeys } from '../../../src/backup/crypto/key-ring.ts';
import { GateMemory } from '../../../src/base/source-gate.ts';
import { randomGuid } from '../../../src/bytes/guid.ts';
import { SourceWatch } from '../../../src/base/source-watch.ts';
import { maxBeside } from '../../../src/mount/kernel/beside.ts';
import { KernelTransport, type KernelOptions } from '../../../src/mount/kernel/transport.ts';
import { LogLimit } from '../../../src/mount/log-limit.ts';
import { unmount } from '../../../src/mounts/mountpoint.ts';
import { OpenReplacements } from '../../../src/replacement/replacements.ts';
import { Statistics } from '../../../src/fill/statistics.ts';
import { TempFolder } from '../../temp-folder.ts';

export class InProcessMount {
  readonly temporary: TempFolder;
  readonly mountpoint: string;
  readonly transport: KernelTransport;
  /** Messages of the main thread's log. */
  readonly told: string[];

  private constructor(temporary: TempFolder, transport: KernelTransport, told: string[]) {
    this.temporary = temporary;
    this.mountpoint = temporary.file('mount');
    this.transport = transport;
    this.told = told;
  }

  static async start(options: Partial<KernelOptions> & { readonly workers: number }): Promise<InProcessMount> {
    const temporary = new TempFolder();
    for (const name of ['mount', 'folder']) fs.mkdirSync(temporary.file(name));
    const told: string[] = [];
    const all: KernelOptions = {
      filter: {
        folder: temporary.file('folder'),
        allowPaths: [],
        trustPluginFiles: false,
        present: undefined,
        write: undefined,
        mountId: randomGuid(),
        keys: noKeys,
      },
      mountpoint: temporary.file('mount'),
      cacheBytes: 2 ** 20,
      indexBytes: 2 ** 20,
      sources: new SourceWatch(GateMemory.allocate(options.workers + maxBeside), 30_000, () => undefined),
      idleMs: 1000,
      statistics: new Statistics(Statistics.allocate(options.workers + 1)),
      replacements: new OpenReplacements(temporary.file('folder')),
      logFd: fs.openSync(temporary.file('log'), 'a'),
      logLimit: new LogLimit().buffer,
      ...options,
    };
    const transport = await KernelTransport.start(all, (_level, message) => void told.push(message));
    return new InProcessMount(temporary, transport, told);
  }

  under(name: string): string {
    return `${this.mountpoint}/${name}`;
  }

  behind(name: string): string {
    return this.temporary.file(`folder/${name}`);
  }

  async end(): Promise<void> {
    await unmount(this.mountpoint, true);
    await this.transport.close();
    this.temporary.remove();
  }
}
