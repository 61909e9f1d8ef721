/** What is mounted, as the system lists it. No mount is touched for it. */
import * as fs from './fs.ts';
import { nameOfBytes } from './names.ts';

export interface MountLine {
  readonly mountpoint: string;
  /** Major and minor number of its device. */
  readonly device: string;
  readonly type: string;
}

/** All mounts of this process's namespace, in the order in which they were mounted. */
export function mountLines(): MountLine[] {
  const lines: MountLine[] = [];
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'latin1').split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-');
    const [, , device, , mountpoint] = fields;
    if (separator < 0 || device === undefined || mountpoint === undefined) continue;
    lines.push({ mountpoint: unescaped(mountpoint), device, type: fields[separator + 1] ?? '' });
  }
  return lines;
}

export function mountPoints(): string[] {
  return mountLines().map(({ mountpoint }) => mountpoint);
}

/** Space, tab, line feed and backslash stand there as three octal digits. */
function unescaped(text: string): string {
  const bytes = text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
  return nameOfBytes(Buffer.from(bytes, 'latin1'));
}
