import { expect, it } from 'vitest';
import { closeAll, closing } from '../../src/base/ownership.ts';

it('all is closed, last first, and the first failure reported', () => {
  const closed: string[] = [];
  const item = (name: string, fails = false): { close(): void } => ({
    close() {
      closed.push(name);
      if (fails) throw new Error(`${name} failed`);
    },
  });
  expect(() => closeAll([item('a'), item('b', true), item('c'), item('d', true)])).toThrow('d failed');
  expect(closed).toEqual(['d', 'c', 'b', 'a']);
});

it('what is used is closed at the end of its block, also by an error', () => {
  let closed = 0;
  const use = (): void => {
    const close = (): void => {
      closed++;
    };
    using item = closing({ close });
    expect(item.value).toBeDefined();
    throw new Error('in the block');
  };
  expect(use).toThrow('in the block');
  expect(closed).toBe(1);
});
