import { expect, it } from 'vitest';
import { FillTurns } from '../../src/fill/turns.ts';

const never = new AbortController().signal;

it('so many work at once, and the others in the order in which they came', async () => {
  const turns = new FillTurns(2);
  const order: string[] = [];
  const take = async (name: string, signal = never): Promise<boolean> => {
    const has = await turns.take(signal);
    order.push(`${name}${has ? '' : ' left'}`);
    return has;
  };
  const leaving = new AbortController();
  const asked = [take('a'), take('b'), take('c'), take('d', leaving.signal), take('e')];
  await Promise.all(asked.slice(0, 2));
  expect([order, turns.isFree]).toEqual([['a', 'b'], false]);
  leaving.abort();
  await asked[3];
  turns.give();
  await asked[2];
  turns.give();
  await asked[4];
  expect(order).toEqual(['a', 'b', 'd left', 'c', 'e']);
  expect(turns.isFree).toBe(false);
  turns.give();
  turns.give();
  expect(turns.isFree).toBe(true);
  expect(await turns.take(leaving.signal)).toBe(false);
});
