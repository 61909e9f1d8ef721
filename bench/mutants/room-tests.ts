/**
 * Which tests are to notice the mutants of a part of `src/`: those of its room, then some others: first those that are called like it, then those
 * that are the fewest imports away.
 */
import fs from 'node:fs';
import path from 'node:path';

const importPattern = /(?:from|import\(|new URL\()\s*'(\.[^']+)'/g;

/** What runs the built tool imports nothing of it. */
const runsTheTool = 'test/cli/veneer.ts';
const toolMain = 'src/cli/main.ts';

/**
 * @param target as of `sourceFiles`
 * @param relatedCount how many tests of other rooms
 * @returns names in the checkout
 */
export function testsOf(root: string, target: string, files: readonly string[], relatedCount: number): string[] {
  const all = fs.globSync('test/**/*.test.ts', { cwd: root }).toSorted();
  const own = all.filter((name) => isOfRoom(name, all, target));
  const others = all.filter((name) => !own.includes(name));
  const called = others.filter((name) => isCalledLike(name, target));
  const distances = distancesTo(root, files);
  const near = others
    .filter((name) => !called.includes(name) && distances.has(name))
    .toSorted((a, b) => (distances.get(a) ?? 0) - (distances.get(b) ?? 0));
  return [...own, ...[...called, ...near].slice(0, relatedCount)];
}

/** Whether it lies in the test folder of the target's room, the innermost that there is, or beside that folder's parents. */
function isOfRoom(test: string, all: readonly string[], target: string): boolean {
  const names = target.split('/');
  const folders = names.map((_, index) => path.join('test', ...names.slice(0, index + 1)));
  const room = folders.findLast((folder) => all.some((name) => name.startsWith(`${folder}/`)));
  if (room === undefined) return false;
  return test.startsWith(`${room}/`) || (room.startsWith(`${path.dirname(test)}/`) && path.dirname(test) !== 'test');
}

function isCalledLike(test: string, target: string): boolean {
  const stem = path.basename(target, '.ts');
  return path.basename(test).split(/[-.]/).includes(stem);
}

/** How many imports lie between each test and the nearest of these files; those without a way are left out. */
function distancesTo(root: string, files: readonly string[]): ReadonlyMap<string, number> {
  const importers = importersIn(root);
  const distances = new Map(files.map((file) => [file, 0]));
  // A map is walked with what is added on the way.
  for (const [file, distance] of distances) {
    for (const importer of importers.get(file) ?? [])
      if (!distances.has(importer)) distances.set(importer, distance + 1);
  }
  return distances;
}

function importersIn(root: string): ReadonlyMap<string, readonly string[]> {
  const importers = new Map<string, string[]>([[toolMain, [runsTheTool]]]);
  for (const name of fs.globSync(['src/**/*.ts', 'test/**/*.ts'], { cwd: root })) {
    const text = fs.readFileSync(path.join(root, name), 'utf8');
    for (const [, imported = ''] of text.matchAll(importPattern)) {
      const file = path.join(path.dirname(name), imported);
      importers.set(file, [...(importers.get(file) ?? []), name]);
    }
  }
  return importers;
}
