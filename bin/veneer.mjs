#!/usr/bin/env node
// Starts the built tool on a Node that can run it: this one, or the one that npm installed beside it.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const [major, minor] = process.versions.node.split('.').map(Number);
const main = new URL('../dist/main.js', import.meta.url);
const ownNode = fileURLToPath(new URL('../node_modules/.bin/node', import.meta.url));

if (!existsSync(main)) {
  console.error('veneer: is not built yet; run: bash scripts/setup.sh');
  process.exit(1);
}
if (major > 22 || (major === 22 && minor >= 15)) {
  await import(main.href);
} else if (existsSync(ownNode)) {
  const child = spawn(ownNode, [fileURLToPath(main), ...process.argv.slice(2)], { stdio: 'inherit' });
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => child.kill(name));
  child.on('exit', (status) => process.exit(status ?? 1));
} else {
  console.error(`veneer: needs Node 22.15 or later, this is ${process.version}; run: bash scripts/setup.sh`);
  process.exit(1);
}
