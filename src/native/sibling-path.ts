/** How a differencing file names its parent, which lies in the same folder. */
import { UsageError } from '../base/errors.ts';

/**
 * As a relative Windows path: `.\vm.vhdx`.
 * @throws UsageError when no file on Windows can have that name, or another file could be meant by it
 */
export function windowsSibling(fileName: string): string {
  const forbidden = /[\\/:*?"<>|\p{Cc}]/u;
  if (forbidden.test(fileName) || !fileName.isWellFormed()) {
    throw new UsageError(`"${fileName}" cannot be written as a Windows path; rename the file`);
  }
  return `.\\${fileName}`;
}

const here = './';

/** As QEMU takes it, and readers of ours: with a colon in it a name would be a protocol, and with a backslash a path of Windows. */
export function qemuSibling(fileName: string): string {
  return /[:\\]/.test(fileName) ? here + fileName : fileName;
}

/** The name of a file in the same folder that is written so; undefined for what may be anything else. */
export function plainSibling(written: string): string | undefined {
  const isMarked = written.startsWith(here);
  const name = isMarked ? written.slice(here.length) : written;
  const isPlain = name !== '' && name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0');
  return isPlain && (isMarked || !/[:\\]/.test(name)) ? name : undefined;
}
