/** Closing what was opened: in reverse order, all of it, with the first failure reported. */

export interface Closable {
  /** Idempotent. */
  close(): void;
}

/** Closes every item, last first; when some fail, the others are still closed and the first failure is thrown. */
export function closeAll(items: Iterable<Closable>): void {
  let first: { error: unknown } | undefined;
  for (const item of [...items].reverse()) {
    try {
      item.close();
    } catch (error) {
      first ??= { error };
    }
  }
  if (first !== undefined) throw first.error;
}

/** For `using`: closes the value at the end of the block. */
export function closing<T extends Closable>(value: T): Disposable & { readonly value: T } {
  return { value, [Symbol.dispose]: () => value.close() };
}
