/**
 * Programs that are run with names as arguments: Node hands over text, which cannot carry a byte that is no UTF-8. Where an argument has one,
 * the shell makes the bytes and becomes the program, so that process, descriptors and status are as if it had been run itself.
 */
import { bytesOfName } from './names.ts';

/** $1: the program; then its arguments, as `printf %b` reads them. The x keeps line breaks at an argument's end. */
const script =
  'LC_ALL=C; program=$1; shift; for a do a=$(printf "%bx" "$a"); set -- "$@" "${a%x}"; shift; done; exec "$program" "$@"';
const ordinary = /[A-Za-z0-9/._,=:-]/;

/** What to spawn for a program and its arguments. */
export function commandOf(
  program: string,
  args: readonly string[],
): { readonly program: string; readonly args: string[] } {
  if (args.every((argument) => argument.isWellFormed())) return { program, args: [...args] };
  return { program: '/bin/sh', args: ['-c', script, 'sh', program, ...args.map(encoded)] };
}

function encoded(argument: string): string {
  return [...bytesOfName(argument)]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return ordinary.test(character) ? character : `\\0${byte.toString(8).padStart(3, '0')}`;
    })
    .join('');
}
