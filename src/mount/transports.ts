/** The ways to speak with the kernel, the better ones first: a folder and a line here is all that a further one takes. */
import { describeError, UnavailableError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { isMountpoint, unmount } from '../mounts/mountpoint.ts';
import type { Filter } from './filter.ts';
import { serveFuseNative } from './fuse-native/transport.ts';
import { KernelTransport, type KernelOptions } from './kernel/transport.ts';
import type { ServingTransport } from './transport.ts';

export interface TransportContext {
  /** Of the main thread. A transport with threads of its own makes one for each, by the options. */
  readonly filter: Filter;
  readonly options: KernelOptions;
  readonly log: Log;
}

interface TransportFactory {
  readonly name: string;
  /** Mounts, and serves when it resolves. @throws any error: something may be mounted then, which answers nothing */
  start(context: TransportContext): Promise<ServingTransport>;
}

const transports: readonly TransportFactory[] = [
  {
    name: 'kernel',
    start: async ({ filter, options, log }) =>
      await KernelTransport.start({ ...options, diskKeyOf: (place) => filter.diskKeyOf(place) }, log),
  },
  {
    name: 'fuse-native',
    start: async ({ filter, options, log }) => await serveFuseNative(filter, options.mountpoint, options.idleMs, log),
  },
];

/** The first that works here. */
export const anyTransport = 'auto';
export const transportNames: readonly string[] = transports.map(({ name }) => name);

/**
 * Mounts over the transport of a name, or over the first that works.
 * @throws UnavailableError, with the reasons: nothing is mounted then
 */
export async function startTransport(choice: string, context: TransportContext): Promise<ServingTransport> {
  const { log, options } = context;
  const chosen = transports.filter(({ name }) => choice === anyTransport || name === choice);
  const reasons: string[] = [];
  for (const [index, transport] of chosen.entries()) {
    try {
      return await transport.start(context);
    } catch (error) {
      if (isMountpoint(options.mountpoint)) await unmount(options.mountpoint, true);
      reasons.push(`${transport.name}: ${describeError(error)}`);
      const next = chosen[index + 1];
      if (next !== undefined)
        log(
          'warn',
          `the ${transport.name} transport does not work here, ${next.name} is tried: ${describeError(error)}`,
          {},
        );
    }
  }
  throw new UnavailableError(`${options.mountpoint}: cannot be mounted (${reasons.join('; ')})`);
}
