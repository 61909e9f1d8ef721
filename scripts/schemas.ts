/** Writes native-notes/schemas/ anew: after a change of what a command prints with --json. */
import fs from 'node:fs';
import { schemaFolder, schemaTexts } from './json-schemas.ts';

fs.rmSync(schemaFolder, { recursive: true, force: true });
fs.mkdirSync(schemaFolder);
for (const [file, text] of await schemaTexts()) fs.writeFileSync(file, text);
