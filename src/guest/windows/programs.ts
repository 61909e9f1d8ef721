/** Programs of Windows (PE), as far as a plan looks at them: what machine they are for. Source: "PE Format", Microsoft. */
import { viewOf } from '../../bytes/view.ts';

/** What Windows calls processors: the machine in a program's header, and the name in the environment and in folders of drivers. */
export const machines = {
  amd64: 0x8664,
  x86: 0x14c,
  arm64: 0xaa64,
} as const;
export type Architecture = keyof typeof machines;

const peOffsetField = 0x3c;
const dosMark = 0x5a4d;
const peMark = 0x4550;

/** The machine's number; undefined where the bytes are no program. */
export function machineOf(program: Uint8Array): number | undefined {
  const view = viewOf(program);
  if (program.length < peOffsetField + 4 || view.getUint16(0, true) !== dosMark) return undefined;
  const at = view.getUint32(peOffsetField, true);
  return at + 6 <= program.length && view.getUint32(at, true) === peMark ? view.getUint16(at + 4, true) : undefined;
}

/** As a person calls the machine. */
export function describeMachine(machine: number): string {
  const known = Object.entries(machines).find(([, number]) => number === machine);
  return known?.[0] ?? `machine 0x${machine.toString(16)}`;
}

/** The architecture by the name that Windows has for it, `AMD64`. */
export function architectureOf(name: string | undefined): Architecture | undefined {
  const wanted = name?.toLowerCase();
  return wanted === 'amd64' || wanted === 'x86' || wanted === 'arm64' ? wanted : undefined;
}
