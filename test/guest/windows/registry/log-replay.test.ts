/** Replay of a hive's logs, held against what Windows itself made of the same hives and logs. */
import { expect, it } from 'vitest';
import { FormatError } from '../../../../src/base/errors.ts';
import { changedRuns } from '../../../../src/filesystem/edit/changed-runs.ts';
import { viewOf } from '../../../../src/bytes/view.ts';
import { baseBlock, checksumOf } from '../../../../src/guest/windows/registry/layout.ts';
import { replayLogs } from '../../../../src/guest/windows/registry/log-replay.ts';
import { marvin32 } from '../../../../src/guest/windows/registry/marvin.ts';
import { emptyHive, realHive } from '../hives.ts';

const newHive = 'dirty/NewDirtyHive1/NewDirtyHive';
const oldHive = 'dirty/OldDirtyHive/OldDirtyHive';

function withChecksum(hive: Buffer): Buffer {
  viewOf(hive).setUint32(baseBlock.offsetOf('checksum'), checksumOf(hive), true);
  return hive;
}

it('a hive of Windows 10 and its two logs become what Windows made of them, byte for byte', (context) => {
  const logs = ['.LOG1', '.LOG2'].map((suffix) => realHive(context, `${newHive}${suffix}`));
  const replayed = replayLogs('test', realHive(context, newHive), logs);
  expect(replayed).toMatchObject({ state: 'replayed', applied: [0, 1] });
  expect(realHive(context, 'dirty/NewDirtyHive1/RecoveredHive_Windows10').equals(replayed.bytes)).toBe(true);
});

it('the logs of a hive are applied in the order of their numbers, whichever comes first', (context) => {
  const logs = ['.LOG2', '.LOG1'].map((suffix) => realHive(context, `${newHive}${suffix}`));
  const replayed = replayLogs('test', realHive(context, newHive), logs);
  expect(replayed.applied).toEqual([1, 0]);
  expect(realHive(context, 'dirty/NewDirtyHive1/RecoveredHive_Windows10').equals(replayed.bytes)).toBe(true);
});

it('a hive of Windows 7 and its log become what Windows made of them, but for what Windows wrote after it', (context) => {
  const logs = ['.LOG1', '.LOG2'].map((suffix) => realHive(context, `${oldHive}${suffix}`));
  const { bytes, state } = replayLogs('test', realHive(context, oldHive), logs);
  expect(state).toBe('replayed');
  const truth = realHive(context, 'dirty/OldDirtyHive/RecoveredHive_Windows7');
  // Windows 7 then saved the hive once more: base block, time of the first bin, and one largest length that it had counted anew.
  const behind = changedRuns(bytes.subarray(512), truth.subarray(512)).map(({ offset, length }) => [
    512 + offset,
    length,
  ]);
  expect(behind).toEqual([
    [4116, 5],
    [441_800, 1],
  ]);
  expect(viewOf(bytes).getUint32(baseBlock.offsetOf('checksum'), true)).toBe(checksumOf(bytes));
});

it('a torn entry of a log ends the replay at the entry before it', (context) => {
  const logs = ['.LOG1', '.LOG2'].map((suffix) => Buffer.from(realHive(context, `${newHive}${suffix}`)));
  logs[1]?.writeUInt8(0xa5, 8192 + 100);
  const { bytes, applied } = replayLogs('test', realHive(context, newHive), logs);
  expect(applied).toEqual([0, 1]);
  // Entries 2 and 3 are applied, 4 is torn.
  expect(baseBlock.parse(bytes)).toMatchObject({ primarySequence: 4, secondarySequence: 4 });
});

it('a log that does not follow the one before it is left alone', (context) => {
  const log = Buffer.from(realHive(context, `${newHive}.LOG2`));
  log.writeUInt32LE(9, 4);
  log.writeUInt32LE(9, 8);
  const { applied } = replayLogs('test', realHive(context, newHive), [
    realHive(context, `${newHive}.LOG1`),
    withChecksum(log),
  ]);
  expect(applied).toEqual([0]);
});

it('logs of a clean hive mean nothing, as do logs that are older than the hive', (context) => {
  const log = realHive(context, `${newHive}.LOG1`);
  const hive = emptyHive();
  expect(replayLogs('test', hive, [log])).toEqual({ bytes: hive, state: 'clean', applied: [] });
  hive.writeUInt32LE(101, 4);
  hive.writeUInt32LE(100, 8);
  expect(replayLogs('test', withChecksum(hive), [log]).state).toBe('dirty without logs');
});

it('a base block that fails its checksum is taken from the later log', (context) => {
  const broken = Buffer.from(realHive(context, newHive));
  broken.writeUInt32LE(12345, 44);
  const logs = ['.LOG1', '.LOG2'].map((suffix) => realHive(context, `${newHive}${suffix}`));
  const { bytes, state, applied } = replayLogs('test', broken, logs);
  expect({ state, applied }).toEqual({ state: 'replayed', applied: [1] });
  expect(baseBlock.parse(bytes)).toMatchObject({
    clusteringFactor: 1,
    fileType: 0,
    primarySequence: 6,
    secondarySequence: 6,
  });
});

it('a hive with a wrong checksum and no log is refused; one that is dirty without logs is as it is', () => {
  const hive = emptyHive();
  hive.writeUInt32LE(2, 4);
  expect(() => replayLogs('test', hive, [])).toThrow(FormatError);
  const dirty = withChecksum(hive);
  expect(replayLogs('test', dirty, [new Uint8Array(0)])).toEqual({
    bytes: dirty,
    state: 'dirty without logs',
    applied: [],
  });
});

it('the checksum is never 0 nor all ones', () => {
  const base = new Uint8Array(512);
  expect(checksumOf(base)).toBe(1);
  viewOf(base).setUint32(0, 0xffff_ffff, true);
  expect(checksumOf(base)).toBe(0xffff_fffe);
  viewOf(base).setUint32(4, 0x0f00_0000, true);
  expect(checksumOf(base)).toBe(0xf0ff_ffff);
});

it('Marvin32 is that of the entries that Windows wrote', (context) => {
  const log = realHive(context, `${newHive}.LOG2`);
  for (const [at, sizeBytes] of [
    [512, 7680],
    [8192, 24_576],
  ] as const) {
    expect(marvin32(log.subarray(at, at + 32))).toBe(log.readBigUInt64LE(at + 32));
    expect(marvin32(log.subarray(at + 40, at + sizeBytes))).toBe(log.readBigUInt64LE(at + 24));
  }
});
