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

const layerRules: Linter.Config[] = layers.map((layer, index) => ({
  files: [`src/${layer}/**/*.ts`],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: [
          {
            regex: `^(\\.\\./)+(${layers.slice(0, index).join('|') || 'nothing-above'})/`,
            message: `${layer}/ may import only from the layers below it.`,
          },
          ...(layer === 'cli'
            ? []
            : [{ group: ['commander', 'cli-progress'], message: 'The command line stays in cli/.' }]),
          ...(layer === 'machine'
            ? []
            : [{ group: ['node:fs', 'node:fs/*'], message: 'Names are bytes: import base/fs.ts.' }]),
          ...(layer === 'mount'
            ? []
            : [{ group: ['fuse-native'], message: 'Only mount/fuse-native/ knows that package.' }]),
        ],
      },
    ],
  },
}));

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
