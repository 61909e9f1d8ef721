/** Hives for tests: real ones from beside the repository, and small ones that hivexregedit fills; and what foreign readers read in them. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { TestContext } from 'vitest';
import {
  baseBlock,
  binHeader,
  binsStartBytes,
  checksumOf,
  keyNode,
  noCell,
} from '../../../src/guest/windows/registry/layout.ts';
import { viewOf } from '../../../src/bytes/view.ts';
import { missingProgram } from '../../native/judges.ts';
import { TempFolder } from '../../temp-folder.ts';

const fixtures = path.join(import.meta.dirname, '../../../../shared/fixtures/hives');
const unpacked = new Map<string, Buffer>();

/** A real hive, e.g. `SYSTEM` or `dirty/OldDirtyHive/OldDirtyHive.LOG1`; skips the test where it cannot be had. */
export function realHive(context: TestContext, name: string): Buffer {
  const known = unpacked.get(name);
  if (known !== undefined) return known;
  const file = path.join(fixtures, `${name}.xz`);
  if (!fs.existsSync(file)) context.skip(`the hive ${name} is not here (../shared/fixtures)`);
  const xz = spawnSync('xz', ['-dc', file], { maxBuffer: 256 * 1024 * 1024 });
  if (xz.status !== 0) context.skip('xz is not installed');
  unpacked.set(name, xz.stdout);
  return xz.stdout;
}

export function skipWithout(context: TestContext, programs: readonly string[]): void {
  const missing = missingProgram(programs);
  if (missing !== undefined) context.skip(`${missing} is not installed`);
}

const securityBytes = 20;

/** A hive with nothing but its root, in one bin of `binBytes`; `roomBytes` behind it. */
export function emptyHive(binBytes = 4096, roomBytes = 0): Buffer {
  const hive = Buffer.alloc(binsStartBytes + binBytes + roomBytes);
  const cells = { root: binHeader.sizeBytes, security: binHeader.sizeBytes + 88 };
  const rest = cells.security + 48;
  const base = {
    primarySequence: 1,
    secondarySequence: 1,
    lastWritten: 0n,
    majorVersion: 1,
    minorVersion: 5,
    fileType: 0,
  };
  const places = { fileFormat: 1, rootCell: cells.root, binsLength: binBytes, clusteringFactor: 1 };
  const texts = { fileName: new Uint8Array(64), reserved: new Uint8Array(396), checksum: 0 };
  baseBlock.encode({ ...base, ...places, ...texts }, hive);
  binHeader.encode({ offset: 0, sizeBytes: binBytes, timestamp: 0n }, hive, binsStartBytes);
  const at = (cell: number): number => binsStartBytes + cell;
  hive.writeInt32LE(-88, at(cells.root));
  const none = { subkeyList: noCell, volatileSubkeyList: noCell, valueList: noCell, className: noCell };
  const counts = {
    subkeyCount: 0,
    volatileSubkeyCount: 0,
    valueCount: 0,
    classNameLength: 0,
    accessBits: 0,
    workVar: 0,
  };
  const largest = { largestSubkeyName: 0, largestSubkeyClass: 0, largestValueName: 0, largestValueData: 0 };
  const own = { flags: 0x2c, lastWritten: 0n, parent: noCell, security: cells.security, nameLength: 4 };
  keyNode.encode({ ...none, ...counts, ...largest, ...own }, hive, at(cells.root) + 4);
  hive.write('ROOT', at(cells.root) + 4 + keyNode.sizeBytes, 'latin1');
  hive.writeInt32LE(-48, at(cells.security));
  hive.write('sk', at(cells.security) + 4, 'latin1');
  hive.writeUInt32LE(cells.security, at(cells.security) + 8);
  hive.writeUInt32LE(cells.security, at(cells.security) + 12);
  hive.writeUInt32LE(1, at(cells.security) + 16);
  hive.writeUInt32LE(securityBytes, at(cells.security) + 20);
  // A self-relative descriptor that says nothing.
  hive.writeUInt16LE(1, at(cells.security) + 24);
  hive.writeUInt16LE(0x8000, at(cells.security) + 26);
  hive.writeInt32LE(binBytes - rest, at(rest));
  viewOf(hive).setUint32(baseBlock.offsetOf('checksum'), checksumOf(hive), true);
  return hive;
}

/** A hive that hivexregedit makes from `lines` in the form of a .reg file, keys from the root: `[\Select]`. */
export function filledHive(lines: readonly string[], roomBytes = 0): Buffer {
  using folder = new TempFolder();
  const hive = folder.write('hive', emptyHive());
  const text = folder.write(
    'text.reg',
    ['Windows Registry Editor Version 5.00', ...lines.map((line) => line.replace(/^\[/, '\n[')), ''].join('\n'),
  );
  execFileSync('hivexregedit', ['--merge', '--prefix', '', hive, text], { stdio: 'pipe' });
  return Buffer.concat([fs.readFileSync(hive), Buffer.alloc(roomBytes)]);
}

const exported = new Map<string, string[]>();

/** All keys and values as hivexregedit reads them, one entry for each value and each key; of one hive, once. */
function exportHive(bytes: Uint8Array): string[] {
  const digest = createHash('sha256').update(bytes).digest('hex');
  const entries = exported.get(digest) ?? exportAnew(bytes);
  exported.set(digest, entries);
  return entries;
}

function exportAnew(bytes: Uint8Array): string[] {
  using folder = new TempFolder();
  const text = execFileSync('hivexregedit', ['--export', folder.write('hive', bytes), '\\'], {
    maxBuffer: 512 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'ignore'],
  }).toString('latin1');
  const entries: string[] = [];
  let key = '';
  for (const line of text.split('\n')) {
    if (line.startsWith('[')) {
      key = line.slice(1, -1);
      entries.push(key);
    } else if (line !== '' && key !== '') {
      entries.push(`${key} ${line}`);
    }
  }
  return entries;
}

/** What changed between two exports. */
export function exportDifference(before: Uint8Array, after: Uint8Array): { gone: string[]; added: string[] } {
  const [old, now] = [exportHive(before), exportHive(after)];
  const [oldSet, nowSet] = [new Set(old), new Set(now)];
  return { gone: old.filter((entry) => !nowSet.has(entry)), added: now.filter((entry) => !oldSet.has(entry)) };
}

/** Throws where chntpw's registry editor or libregf cannot read the hive to its end. */
export function judgeHive(bytes: Uint8Array): void {
  using folder = new TempFolder();
  const file = folder.write('hive', bytes);
  execFileSync('regfinfo', [file], { stdio: ['ignore', 'ignore', 'pipe'], maxBuffer: 256 * 1024 * 1024 });
  // reged ends with 0 also when a hive is broken, and says so.
  const said = execFileSync('reged', ['-x', file, 'HKEY_LOCAL_MACHINE\\TEST', '\\', folder.file('out.reg')], {
    stdio: 'pipe',
    maxBuffer: 256 * 1024 * 1024,
  }).toString('latin1');
  const faults = said
    .split('\n')
    .filter((line) => !line.startsWith('Exporting') && /corrupt|error|unknown|invalid/i.test(line));
  if (faults.length > 0) throw new Error(`reged: ${faults.join('; ')}`);
}

/** A value as hivexget reads it. */
export function hivexValue(file: string, key: string, value: string): string {
  return execFileSync('hivexget', [file, key, value], { encoding: 'utf8' }).trim();
}
