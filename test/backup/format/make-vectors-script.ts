/**
 * Made the test vectors, once: `node test/backup/format/make-vectors-script.ts FOLDER`. A full image, two incrementals and their consolidation, under
 * a key file and a passphrase. They are kept as they are: a reader that fails on them after a change has changed the format.
 */
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { KiB } from '../../../src/base/units.ts';
import { addKey } from '../../../src/backup/care/change-keys.ts';
import { consolidateChain } from '../../../src/backup/care/consolidate-chain.ts';
import { createImage } from '../../../src/backup/write/create.ts';
import { KeyRing } from '../../../src/backup/crypto/key-ring.ts';
import type { Credential } from '../../../src/backup/crypto/key-slots.ts';

const folder = process.argv[2] ?? '';
const blockBytes = 16 * KiB;
const owner: Credential = { kind: 'key file', secret: Buffer.from(Array.from({ length: 48 }, (_, index) => index)) };
const keys = new KeyRing({ credentials: [owner], chains: [] });
const source = path.join(folder, 'source.raw');
const at = (name: string): string => path.join(folder, name);
const disk = Buffer.alloc(20 * blockBytes - 100);
const put = (position: number, text: string, length = blockBytes): void => {
  disk.fill(`${text} `, position * blockBytes, Math.min(position * blockBytes + length, disk.length));
  fs.writeFileSync(source, disk);
};

put(0, 'the first block');
put(3, 'the fourth block, of which only a part is used', 5000);
put(7, 'a block that is made zero later');
put(19, 'the last block, which the end of the disk cuts');
await createImage(source, at('0.spf'), { blockBytes, codec: 'zstd', encrypt: owner });
put(3, 'the fourth block, written again');
disk.fill(0, 7 * blockBytes, 8 * blockBytes);
fs.writeFileSync(source, disk);
await createImage(source, at('1.spi'), { parent: at('0.spf'), keys, codec: 'lz4' });
put(5, 'a block of the newest image alone');
put(0, 'the first block, written again', 1000);
await createImage(source, at('2.spi'), { parent: at('1.spi'), keys, codec: 'zstd' });
const passphrase: Credential = { kind: 'passphrase', secret: Buffer.from('correct horse battery staple') };
addKey(at('2.spi'), [owner], passphrase, 'for the vectors');
await consolidateChain([at('2.spi')], at('consolidated.spf'));
for (const name of ['0.spf', '1.spi', '2.spi', 'consolidated.spf'])
  fs.writeFileSync(at(`${name}.gz`), gzipSync(fs.readFileSync(at(name)), { level: 9 }));
fs.writeFileSync(at('disk.raw.gz'), gzipSync(disk, { level: 9 }));
fs.writeFileSync(at('key'), owner.secret);
fs.writeFileSync(at('passphrase'), 'correct horse battery staple\n');
for (const name of ['0.spf', '1.spi', '2.spi', 'consolidated.spf', 'source.raw']) fs.rmSync(at(name));
