/**
 * The build: the command line and each worker thread as one module, with what they share in chunks beside them.
 *
 * Nothing is bundled for its size: 300 small modules take three times as long to load as these, and every command, mount and worker
 * thread loads them.
 */
import { globSync } from 'node:fs';
import path from 'node:path';
import { build } from 'rolldown';

const workers = globSync('src/**/*{-worker,worker-main}.ts');

await build({
  input: Object.fromEntries(['src/cli/main.ts', ...workers].map((file) => [path.basename(file, '.ts'), file])),
  platform: 'node',
  // What brings native code or finds files of its own beside its modules.
  external: ['fuse-native', 'koffi', '@node-rs/crc32', 'lz4-napi', 'pino'],
  output: {
    dir: 'dist',
    format: 'esm',
    sourcemap: true,
    entryFileNames: '[name].js',
    chunkFileNames: 'chunk-[hash].js',
  },
});
