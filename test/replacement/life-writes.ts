/** What the guest writes in the life that life-script.ts leads: each once, none where another one does. */
import { unitBytes } from '../../src/replacement/layout.ts';

export const lifeWrites = {
  intercepted: { offset: 3 * unitBytes + 512, lengthBytes: 1024, fill: 0x11 },
  'filling copied': { offset: unitBytes + 1024, lengthBytes: 512, fill: 0x22 },
  filled: { offset: 6 * unitBytes, lengthBytes: unitBytes, fill: 0x33 },
  'complete written': { offset: 4 * unitBytes + 2048, lengthBytes: 512, fill: 0x44 },
  'final written': { offset: 5 * unitBytes + 2048, lengthBytes: 512, fill: 0x55 },
} as const;
