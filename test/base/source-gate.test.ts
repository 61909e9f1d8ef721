import { expect, it } from 'vitest';
import { GateMemory, SourceGate } from '../../src/base/source-gate.ts';

function gates(count: number): { memory: GateMemory; gate: (thread: number) => SourceGate } {
  const memory = GateMemory.allocate(count);
  return { memory, gate: (thread) => new SourceGate(new GateMemory(memory.buffer), thread) };
}

it('tells which thread is inside which source, from entering to leaving, and whether it goes on', () => {
  const { memory, gate } = gates(3);
  const own = gate(1);
  const source = own.sourceOf(() => '/mnt/a');
  expect(memory.inside(1)).toBeUndefined();
  own.enter(source);
  const first = memory.inside(1);
  expect(first).toMatchObject({ source, isGivenUp: false });
  expect([memory.inside(0), memory.inside(2)]).toEqual([undefined, undefined]);
  // An inner entry is no other, and a sign of life when it ends.
  own.through(source, () => expect(memory.inside(1)?.word).toBe(first?.word));
  expect(memory.inside(1)?.word).not.toBe(first?.word);
  own.leave(source);
  expect(memory.inside(1)).toBeUndefined();
  own.enter(source);
  expect(memory.inside(1)?.word).not.toBe(first?.word);
});

it('either the thread leaves, or it is given up: never both', () => {
  const { memory, gate } = gates(1);
  const own = gate(0);
  const source = own.sourceOf(() => '/mnt/a');
  own.enter(source);
  const seen = memory.inside(0)?.word ?? 0;
  own.leave(source);
  expect(memory.giveUp(0, seen)).toBe(false);
  own.enter(source);
  expect(memory.giveUp(0, seen)).toBe(false);
  expect(memory.giveUp(0, memory.inside(0)?.word ?? 0)).toBe(true);
  expect(memory.inside(0)).toMatchObject({ source, isGivenUp: true });
  expect(() => own.leave(source)).toThrow('did not answer in time');
  expect(memory.inside(0)).toBeUndefined();
});

it('who was given up gets in nowhere until something else is asked for, and what it made is undone', () => {
  const { memory, gate } = gates(1);
  const own = gate(0);
  const source = own.sourceOf(() => '/mnt/a');
  const undone: string[] = [];
  const opening = (): string => {
    memory.giveUp(0, memory.inside(0)?.word ?? 0);
    return 'opened';
  };
  expect(() => own.through(source, opening, (made) => undone.push(made))).toThrow();
  expect(undone).toEqual(['opened']);
  expect(own.passage).toBe('given up');
  expect(() => own.through(source, () => 'again')).toThrow();
  own.begin();
  expect(own.through(source, () => 'again')).toBe('again');
  expect(own.passage).toBe('passed');
});

it('a failure inside is told as it is, unless the thread was given up', () => {
  const { memory, gate } = gates(1);
  const own = gate(0);
  const source = own.sourceOf(() => '/mnt/a');
  const failing = (): never => {
    throw new Error('EIO');
  };
  expect(() => own.through(source, failing)).toThrow('EIO');
  expect(memory.inside(0)).toBeUndefined();
});

it('a full source turns away at the door; closing what is open is always let through', () => {
  const { memory, gate } = gates(2);
  const own = gate(0);
  const [full, other] = ['/mnt/a', '/mnt/b'].map((name) => own.sourceOf(() => name)) as [number, number];
  memory.setFull(full, true);
  expect(() => own.enter(full)).toThrow('/mnt/a: does not answer');
  expect([own.passage, own.turnedAwayFrom]).toEqual(['turned away', full]);
  expect(memory.inside(0)).toBeUndefined();
  own.begin();
  expect(own.through(other, () => 1)).toBe(1);
  let closed = false;
  own.closing(full, () => (closed = true));
  expect([closed, own.passage]).toEqual([true, 'passed']);
  // Who has come out makes room.
  expect(own.through(full, () => 2)).toBe(2);
});

it('sources are numbered by name, the same from every thread; those beyond the limit share the last number', () => {
  const { gate } = gates(2);
  const [one, other] = [gate(0), gate(1)];
  const names = Array.from({ length: 100 }, (_, index) => `/mnt/${index} \u{dcff}\u00e4`);
  const numbers = names.map((name) => one.sourceOf(() => name));
  expect(names.map((name) => other.sourceOf(() => name))).toEqual(numbers);
  expect(new Set(numbers.slice(0, 63)).size).toBe(63);
  expect(new Set(numbers.slice(63)).size).toBe(1);
  expect(new Set(numbers).size).toBe(64);
});

it('without memory everybody passes', () => {
  const open = new SourceGate();
  const source = open.sourceOf(() => {
    throw new Error('nobody wants to know');
  });
  expect(open.through(source, () => 'through')).toBe('through');
  expect(open.passage).toBe('passed');
});
