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
 * The one of several images of a stem that gets the plain name (`vm.vhdx`); all others have their whole names before the extension
 * (`vm.spf.vhdx`).
 *
 * It is the newest point of its line: no other image of the folder is made on it. So a plain name never reads as an older point than there is,
 * whatever the clock said. Of two chains that would have one plain name, neither has it.
 * @param images their names; @param isNewest whether no other image is made on one
 */
export function ownerOfPlainName(images: readonly string[], isNewest: (image: string) => boolean): string | undefined {
  const [owner, other] = images.filter(isNewest);
  return other === undefined ? owner : undefined;
}

/** A word in every mixture of small and capital letters. */
function spellings(word: string): string[] {
  if (word === '') return [''];
  const [first, rest] = [word.slice(0, 1), spellings(word.slice(1))];
  return [first, first.toUpperCase()].flatMap((letter) => rest.map((spelled) => letter + spelled));
}
