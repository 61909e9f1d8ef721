/** Whether two names lead to one file, however they are spelled: links and relative paths included. */
import * as fs from './fs.ts';

/** False when one of them is not there. */
export function isSameFile(one: string, other: string): boolean {
  const first = fs.statSync(one, { bigint: true, throwIfNoEntry: false });
  const second = fs.statSync(other, { bigint: true, throwIfNoEntry: false });
  return first !== undefined && second !== undefined && first.dev === second.dev && first.ino === second.ino;
}
