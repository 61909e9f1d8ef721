/** Which mutants a run takes: all of a part of `src/`, in an order that a seed makes again. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { mutationsOf, type Mutation } from './mutations.ts';

/**
 * Source files of a room, or one of its files, by their names in the checkout.
 * @param target below `src/`: `replacement`, `fill/finalize.ts`
 * @throws Error when there is none
 */
export function sourceFiles(root: string, target: string): string[] {
  const names = fs
    .globSync([`src/${target}`, `src/${target}/**/*.ts`], { cwd: root })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'));
  if (names.length === 0) throw new Error(`src/${target}: is no source file, and no folder with one`);
  return names.toSorted();
}

/** All mutants of these files, in the order of their texts. */
export function allMutations(root: string, names: readonly string[]): Mutation[] {
  const configPath = path.join(root, 'tsconfig.json');
  const config: unknown = ts.readConfigFile(configPath, (file) => ts.sys.readFile(file)).config;
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  const program = ts.createProgram(
    names.map((name) => path.join(root, name)),
    options,
  );
  const checker = program.getTypeChecker();
  return names.flatMap((name) => {
    const source = program.getSourceFile(path.join(root, name));
    return source === undefined ? [] : mutationsOf(name, source, checker);
  });
}

/** The same mutants in the seed's order. A mutant that comes or goes leaves the order of the others as it is. */
export function shuffled(mutations: readonly Mutation[], seed: string): Mutation[] {
  const keyOf = ({ id }: Mutation): string => createHash('sha256').update(`${seed}\0${id}`).digest('hex');
  return mutations
    .map((mutation) => ({ mutation, key: keyOf(mutation) }))
    .toSorted((a, b) => (a.key < b.key ? -1 : 1))
    .map(({ mutation }) => mutation);
}
