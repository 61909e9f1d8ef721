import { expect, it } from 'vitest';
import { Request } from '../../../src/mount/kernel/request.ts';
import { WaitingRoom } from '../../../src/mount/kernel/waiting-room.ts';
import { seededTest } from '../../seeded.ts';

const nowhere = (): boolean => false;

/** A request whose bytes tell its number. */
function requestOf(number: number, lengthBytes = 80): Request {
  const request = new Request();
  request.lengthBytes = lengthBytes;
  request.bytes.fill(number % 251, 0, lengthBytes);
  request.view.setUint32(0, lengthBytes, true);
  request.view.setInt32(8, number, true);
  request.view.setInt32(12, -number, true);
  return request;
}

it('gives requests out once, whole, oldest first, and those of full sources not at all', () => {
  const room = WaitingRoom.allocate();
  const lengths = [80, 8192, 8193, 2 ** 20];
  for (const [index, length] of lengths.entries()) {
    const request = requestOf(index + 1, length);
    request.sinceUnixMs = 1000 - index;
    expect(room.put(request, 50 + index, 1 + (index % 2))).toBe(true);
  }
  expect([room.count, room.isEmpty, room.holds(52), room.holds(60)]).toEqual([4, false, true, false]);
  const taken = new Request();
  const isFull = (source: number): boolean => source === 2;
  expect(room.hasOpen(isFull)).toBe(true);
  // From another thread's view of the same memory.
  const other = new WaitingRoom(room.buffer);
  for (const index of [2, 0]) {
    expect(other.take(taken, isFull)).toBe(50 + index);
    expect(taken.lengthBytes).toBe(lengths[index]);
    expect([taken.uniqueLow, taken.uniqueHigh, taken.sinceUnixMs]).toEqual([index + 1, -index - 1, 1000 - index]);
    expect(taken.bytes.subarray(16, taken.lengthBytes).every((byte) => byte === index + 1)).toBe(true);
  }
  expect(other.take(taken, isFull)).toBeUndefined();
  expect(room.hasOpen(isFull)).toBe(false);
  expect([room.take(taken, nowhere), room.take(taken, nowhere), room.take(taken, nowhere)]).toEqual([
    53,
    51,
    undefined,
  ]);
  expect(room.isEmpty).toBe(true);
});

it('hands those that have waited for too long to who fails them, and to nobody else', () => {
  const room = WaitingRoom.allocate();
  for (const number of [1, 2, 3]) {
    const request = requestOf(number);
    request.sinceUnixMs = number * 1000;
    room.put(request, 9, 7);
  }
  const failed = [...room.expired(1000, 3500)];
  expect(failed.map(({ uniqueLow, uniqueHigh, channel, source }) => [uniqueLow, uniqueHigh, channel, source])).toEqual([
    [1, -1, 9, 7],
    [2, -2, 9, 7],
  ]);
  const taken = new Request();
  expect(room.take(taken, nowhere)).toBe(9);
  expect(taken.uniqueLow).toBe(3);
  expect([...room.expired(0, 10_000)]).toEqual([]);
});

it('refuses what it has no room for, and has room again: random steps', () => {
  const random = seededTest('waiting room');
  const request = requestOf(0, 20_000);
  const room = WaitingRoom.allocate();
  const waiting = new Set<number>();
  let refused = 0;
  for (let number = 1; number < 2000; number++) {
    if (random.oneIn(3)) {
      const channel = room.take(request, nowhere);
      expect(channel === undefined).toBe(waiting.size === 0);
      if (channel !== undefined) expect(waiting.delete(request.uniqueLow)).toBe(true);
      continue;
    }
    request.lengthBytes = random.oneIn(5) ? 20_000 : 80;
    request.view.setInt32(8, number, true);
    if (room.put(request, 4, 1)) waiting.add(number);
    else refused++;
    expect(room.count).toBe(waiting.size);
  }
  expect(refused).toBeGreaterThan(0);
});
