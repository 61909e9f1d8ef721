/**
 * Run by a test in a process of its own, to be killed: the whole life of a replacement, from its first write to the disk file in the plugin
 * file's place. Prints a line after each step. Run again over what a killed one has left, it goes on.
 */
import fs from 'node:fs';
import type { ReplacementPlace } from '../../src/replacement/open.ts';
import { freeze, writePlain } from '../../src/fill/decrypt.ts';
import { finalizeFiles } from '../../src/fill/finalize.ts';
import { regionCount } from '../../src/fill/filler.ts';
import { changeState } from '../../src/replacement/states.ts';
import { Verifier } from '../../src/fill/verify.ts';
import { KeptFile } from './kept-file.ts';
import { lifeWrites } from './life-writes.ts';
import { patternBase } from './pattern-base.ts';

const place = JSON.parse(process.argv[2] ?? '') as ReplacementPlace;
const file = new KeptFile(place);
const { parts } = file.open;
const { map } = file.replacement;

function say(step: string): void {
  fs.writeSync(1, `${step}\n`);
}

function write(name: keyof typeof lifeWrites): void {
  const { offset, lengthBytes, fill } = lifeWrites[name];
  file.replacement.write(Buffer.alloc(lengthBytes, fill), offset);
  say(name);
}

say('open');
write('intercepted');
if (!file.replacement.servesAlone) {
  changeState(parts, map, 'filling');
  say('filling');
  file.filler.copy(0, 2);
  write('filling copied');
  changeState(parts, map, 'paused');
  say('paused');
  changeState(parts, map, 'filling');
  for (let region = 0; region < regionCount(parts); region++)
    for (const bytes of file.filler.fill(region, () => 4)) if (bytes < 0) throw new Error('never');
  write('filled');
  file.replacement.sync();
  const verifier = new Verifier(parts, patternBase(place.baseBytes, true));
  for (let region = 0; region < regionCount(parts); region++)
    for (const bytes of verifier.verify(region)) if (bytes < 0) throw new Error('never');
  if (verifier.repairedUnits > 0) throw new Error(`${verifier.repairedUnits} units had to be copied again`);
  file.replacement.sync();
  changeState(parts, map, 'complete', true);
  say('complete');
}
write('complete written');
if (place.isSealed) {
  write('final written');
  freeze(parts);
  writePlain(parts, place.path);
}
finalizeFiles(place.path, [{ path: place.path, parts }]).clearAway();
say('final');
if (!place.isSealed) write('final written');
file.close();
