/** What an image is called where the mount presents images as disks with no plugin file, and which images a name can stand for. */

const suffixes = ['spf', 'spi'] as const;
const suffix = /\.(spf|spi)$/i;

/** `vm` of `vm.spf`, `vm.spi` and `vm`: images of one stem want the same name. */
export function stemOf(imageName: string): string {
  return imageName.replace(suffix, '');
}

/** Every file name that has this stem. */
export function namesOfStem(stem: string): string[] {
  const named = suffixes.flatMap((extension) => spellings(extension).map((spelled) => `${stem}.${spelled}`));
  return [...(stemOf(stem) === stem ? [stem] : []), ...named];
}

/**
 * The one of several images of a stem that gets the plain name (`vm.vhdx`); the others have their whole names before the extension
 * (`vm.spi.vhdx`).
 * @param images their names, at least one
 */
export function ownerOfPlainName(images: readonly string[]): string | undefined {
  return [...images].sort()[0];
}

/** A word in every mixture of small and capital letters. */
function spellings(word: string): string[] {
  if (word === '') return [''];
  const [first, rest] = [word.slice(0, 1), spellings(word.slice(1))];
  return [first, first.toUpperCase()].flatMap((letter) => rest.map((spelled) => letter + spelled));
}
