/** JSON Schemas of all that commands print with --json, from what they print it by. `npm run schemas` writes them down. */
import path from 'node:path';
import * as prettier from 'prettier';
import { z } from 'zod';
import { chainListSchema, imageInfoSchema } from '../src/cli/image-json.ts';
import { filesSchema, volumesSchema } from '../src/cli/files.ts';
import { keyListSchema } from '../src/cli/key.ts';
import { reconfigureSchema } from '../src/cli/reconfigure.ts';
import { statusSchema } from '../src/cli/status.ts';
import { fileProofsSchema, fillStatusesSchema } from '../src/fill/fill-status.ts';
import { writtenSchema } from '../src/plugin/plugin-file.ts';

/** By their commands. */
const outputs = {
  'chain list': chainListSchema,
  'files find': filesSchema,
  'files ls': filesSchema,
  'files stat': filesSchema,
  'files volumes': volumesSchema,
  'fill status': fillStatusesSchema,
  'fill verify': fileProofsSchema,
  'image info': imageInfoSchema,
  'key list': keyListSchema,
  'plugin show': writtenSchema,
  reconfigure: reconfigureSchema,
  status: statusSchema,
};
export type JsonCommand = keyof typeof outputs;

export const schemaFolder = path.join(import.meta.dirname, '../native-notes/schemas');

export function schemaPath(command: string): string {
  return path.join(schemaFolder, `${command.replaceAll(' ', '-')}.json`);
}

/** The text of each file, by its path. */
export async function schemaTexts(): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  for (const [command, schema] of Object.entries(outputs)) {
    const title = `veneer ${command} --json`;
    const json = { ...z.toJSONSchema(schema, { target: 'draft-07', io: 'output' }), title };
    const file = schemaPath(command);
    const options = await prettier.resolveConfig(file);
    texts.set(file, await prettier.format(JSON.stringify(json), { ...options, filepath: file }));
  }
  return texts;
}
