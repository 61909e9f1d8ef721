/** The kernel modules of a guest: what there is in /lib/modules/VERSION, what depends on what, and what a controller needs. */
import { FormatError } from '../../base/errors.ts';
import { MiB } from '../../base/units.ts';
import type { FilesByPath } from '../../filesystem/by-path.ts';
import { readText, type LinuxSystem } from './system.ts';
import { moduleName } from './module-index.ts';

export interface KernelModules {
  readonly version: string;
  readonly fileSystem: FilesByPath;
  /** In that file system: `/lib/modules/6.1.0-13-amd64`. */
  readonly folder: string;
  /** Files by module, from the folder, and the files that each needs. */
  readonly files: ReadonlyMap<string, { readonly file: string; readonly needs: readonly string[] }>;
  readonly builtIn: ReadonlySet<string>;
  /** Pattern and module. */
  readonly aliases: readonly (readonly [string, string])[];
}

export interface FoundModules {
  /** What is wanted and what that needs, in an order in which they can be loaded; each once. */
  readonly modules: readonly string[];
  /** Wanted, and neither a module nor built in. */
  readonly absent: readonly string[];
}

const maxModuleBytes = 16 * MiB;
const maxModules = 200;

/** @returns undefined where the guest has no modules of that version */
export function readModules(system: LinuxSystem, version: string): KernelModules | undefined {
  for (const base of ['/lib/modules', '/usr/lib/modules']) {
    const { fileSystem, path: folder } = system.find(`${base}/${version}`);
    const dependencies = readText(fileSystem, `${folder}/modules.dep`);
    if (dependencies === undefined) continue;
    const builtIn = readText(fileSystem, `${folder}/modules.builtin`) ?? '';
    const aliases = readText(fileSystem, `${folder}/modules.alias`) ?? '';
    return {
      version,
      fileSystem,
      folder,
      files: parseDependencies(dependencies),
      builtIn: new Set(
        builtIn
          .split('\n')
          .filter((line) => line !== '')
          .map(moduleName),
      ),
      aliases: [...aliases.matchAll(/^alias (\S+) (\S+)$/gm)].map((match) => [match[1] ?? '', match[2] ?? ''] as const),
    };
  }
  return undefined;
}

/** `kernel/a.ko: kernel/b.ko kernel/c.ko`: c is to be loaded before b. */
function parseDependencies(text: string): KernelModules['files'] {
  const files = new Map<string, { file: string; needs: string[] }>();
  for (const line of text.split('\n')) {
    const [file, needs = ''] = line.split(':', 2);
    // Paths that lead out of the folder are no modules of it.
    if (file === undefined || !/^[\w./+-]+$/.test(file) || file.includes('..')) continue;
    files.set(moduleName(file), { file, needs: needs.split(' ').filter((need) => need !== '') });
  }
  return files;
}

export function findModules(kernel: KernelModules, wanted: readonly string[]): FoundModules {
  const ordered = new Set<string>();
  const absent: string[] = [];
  for (const name of wanted) {
    const found = kernel.files.get(name);
    if (found === undefined) {
      if (!kernel.builtIn.has(name)) absent.push(name);
      continue;
    }
    for (const need of [...found.needs].reverse()) ordered.add(moduleName(need));
    ordered.add(name);
  }
  if (ordered.size > maxModules)
    throw new FormatError('modules.dep', 'dependencies', 0, `${ordered.size} modules are needed`);
  return { modules: [...ordered].filter((name) => kernel.files.has(name)), absent };
}

export function readModule(kernel: KernelModules, name: string): Uint8Array {
  return kernel.fileSystem.readFile(`${kernel.folder}/${kernel.files.get(name)?.file ?? ''}`, maxModuleBytes);
}
