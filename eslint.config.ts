/** Lint rules. The house's layers are one of them: imports point downward only. */
import eslint from '@eslint/js';
import type { Linter } from 'eslint';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/** Top to bottom, as native-notes/architecture.md draws them. A layer may import what stands below it. */
const layers = [
  'cli',
  'machine',
  'mount',
  'mounts',
  'fill',
  'replacement',
  'plugin',
  'browse',
  'source',
  'guest',
  'bootable',
  'volume',
  'filesystem',
  'native',
  'backup',
  'disk',
  'bytes',
  'base',
];

/** Top to bottom, within a layer that has rooms. All files of such a layer lie in one of them. */
const roomsOf: Readonly<Record<string, readonly string[]>> = {
  backup: ['care', 'write', 'read', 'crypto', 'format'],
};

type ImportPattern = { message: string } & ({ regex: string } | { group: string[] });

function layerPatterns(layer: string): ImportPattern[] {
  const above = layers.slice(0, layers.indexOf(layer)).join('|') || 'nothing-above';
  return [
    { regex: `^(\\.\\./)+(${above})/`, message: `${layer}/ may import only from the layers below it.` },
    ...(layer === 'cli' ? [] : [{ group: ['commander', 'cli-progress'], message: 'The command line stays in cli/.' }]),
    ...(layer === 'machine'
      ? []
      : [{ group: ['node:fs', 'node:fs/*'], message: 'Names are bytes: import base/fs.ts.' }]),
    ...(layer === 'mount' ? [] : [{ group: ['fuse-native'], message: 'Only mount/fuse-native/ knows that package.' }]),
  ];
}

function roomPatterns(layer: string, room: string): ImportPattern[] {
  const rooms = roomsOf[layer] ?? [];
  const above = rooms.slice(0, rooms.indexOf(room)).join('|') || 'nothing-above';
  return [
    ...layerPatterns(layer),
    {
      regex: `^(\\.\\./)+(${layer}/)?(${above})/`,
      message: `${layer}/${room}/ may import only from the rooms below it.`,
    },
    { regex: '^\\.\\./[^./][^/]*\\.ts$', message: `Each file of ${layer}/ lies in one of its rooms.` },
  ];
}

function restricted(folder: string, patterns: readonly ImportPattern[]): Linter.Config {
  return { files: [`src/${folder}/**/*.ts`], rules: { 'no-restricted-imports': ['error', { patterns }] } };
}

/** The last that names a file counts for it: so a room's rules hold its layer's too. */
const layerRules: Linter.Config[] = [
  ...layers.map((layer) => restricted(layer, layerPatterns(layer))),
  ...Object.entries(roomsOf).flatMap(([layer, rooms]) =>
    rooms.map((room) => restricted(`${layer}/${room}`, roomPatterns(layer, room))),
  ),
];

/** What Node makes text of, and so loses names that are no UTF-8. */
const givenNames = [
  { object: 'path', property: 'resolve', message: 'absolutePath of base/given-names.ts knows the current folder.' },
  { object: 'process', property: 'cwd', message: 'absolutePath of base/given-names.ts knows the current folder.' },
  { object: 'os', property: 'tmpdir', message: 'Use temporaryFolder of base/given-names.ts.' },
  { object: 'os', property: 'homedir', message: 'Use homeFolder of base/given-names.ts.' },
];

export default defineConfig(
  { ignores: ['dist', '.cache', 'node_modules'] },
  eslint.configs.recommended,
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      // A type parameter that only names what a caller expects across a thread is worth having.
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
      '@typescript-eslint/no-invalid-void-type': 'off',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      'no-restricted-syntax': [
        'error',
        { selector: "BinaryExpression[operator='<<'][left.type!='Literal']", message: 'Sizes pass 2^32: multiply.' },
      ],
    },
  },
  { files: ['src/**/*.ts'], rules: { 'no-console': 'error', 'no-restricted-properties': ['error', ...givenNames] } },
  ...layerRules,
  { files: ['src/base/fs.ts'], rules: { 'no-restricted-imports': 'off' } },
  { files: ['src/base/given-names.ts'], rules: { 'no-restricted-properties': 'off' } },
  {
    files: ['**/*.mjs'],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly' } },
  },
);
