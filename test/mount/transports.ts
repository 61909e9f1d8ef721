/** The transports that a conformance suite runs over: one suite, each time over another way to speak with the kernel. */
import { describe } from 'vitest';
import { veneer } from '../cli/veneer.ts';
import { soak } from '../seeded.ts';
import { MountPlace } from './mounted.ts';

export interface Transport {
  readonly name: string;
  /** Options of `veneer mount`. */
  readonly options: readonly string[];
  /** libfuse 2 leaks the threads it retires above about ten: fuse-native never gets more callers at once than this. */
  readonly callersAtOnce: number;
}

const help = (await veneer('mount', '--help')).stdout;
const mayBeChosen = help.includes('--transport');
const fuseNative: Transport = {
  name: 'fuse-native',
  options: mayBeChosen ? ['--transport', 'fuse-native'] : [],
  callersAtOnce: 8,
};
const kernel: Transport = { name: 'kernel', options: ['--transport', 'kernel'], callersAtOnce: 64 };

const whyNoKernel = mayBeChosen ? await whyNot(kernel) : 'this build has one transport only';

/** Runs a suite over every transport; one that does not work here is skipped, and its title says why. */
export function describeTransports(title: string, suite: (transport: Transport) => void): void {
  describe(`${title} (${fuseNative.name})`, () => suite(fuseNative));
  if (whyNoKernel === undefined) describe(`${title} (${kernel.name})`, () => suite(kernel));
  else describe.skip(`${title} (${kernel.name}: ${whyNoKernel})`, () => suite(kernel));
}

/**
 * For what lies above all transports (plugin files, fills, keys, what is told): in the first that works here. A soak has it in each.
 */
export function describeAboveTransports(title: string, suite: (transport: Transport) => void): void {
  if (soak) describeTransports(title, suite);
  else if (whyNoKernel === undefined) describe(`${title} (${kernel.name})`, () => suite(kernel));
  else describe(`${title} (${fuseNative.name})`, () => suite(fuseNative));
}

async function whyNot(transport: Transport): Promise<string | undefined> {
  const place = new MountPlace();
  try {
    const { status, stderr } = await veneer('mount', ...transport.options, place.folder, place.mountpoint);
    return status === 0 ? undefined : stderr.trim();
  } finally {
    place.end();
  }
}
