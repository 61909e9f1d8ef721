/** How a differencing file names its parent, which lies in the same folder. */
import { UsageError } from '../base/errors.ts';

/**
 * As a relative Windows path: `.\vm.vhdx`.
 * @throws UsageError when no file on Windows can have that name, or another file could be meant by it
 */
export function windowsSibling(fileName: string): string {
  const forbidden = /[\\/:*?"<>|\p{Cc}]/u;
  if (forbidden.test(fileName)) {
    throw new UsageError(`${JSON.stringify(fileName)} cannot be written as a Windows path; rename the file`);
  }
  return `.\\${fileName}`;
}

/** As QEMU takes it: with a colon in it a name would be a protocol. */
export function qemuSibling(fileName: string): string {
  return fileName.includes(':') ? `./${fileName}` : fileName;
}
