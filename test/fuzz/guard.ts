/**
 * Counts what an input asks for: the largest array and the sum of all arrays, of every kind that JavaScript code can
 * make.
 */

interface Asked {
  largest: number;
  total: number;
}

const state: { open: Asked | null } = { open: null };

function note(bytes: number): void {
  const asked = state.open;
  if (!asked || !(bytes > 0)) return;
  asked.largest = Math.max(asked.largest, bytes);
  asked.total += bytes;
}

type Maker = new (...args: never[]) => object;

/**
 * Replaces a constructor by one that notes the bytes it is asked for before it makes them; the result puts the old one
 * back.
 */
function watch(name: string, bytesOf: (args: unknown[]) => number): () => void {
  const scope = globalThis as unknown as Record<string, Maker>;
  const original = scope[name];
  scope[name] = new Proxy(original, {
    construct(target, args, self) {
      note(bytesOf(args));
      return Reflect.construct(target, args, self);
    },
  });
  return () => void (scope[name] = original);
}

/** Watches all constructors of arrays until disposed. */
export function watchArrays(): Disposable {
  const count = (v: unknown): number => (typeof v === "number" ? v : 0);
  const restore = [
    watch("ArrayBuffer", ([n]) => count(n)),
    watch("Array", ([n, ...more]) => (more.length === 0 ? 8 * count(n) : 0)),
  ];
  for (const [name, each] of [
    ["Uint8Array", 1], ["Uint16Array", 2], ["Int32Array", 4], ["Float32Array", 4], ["Float64Array", 8],
    ["BigInt64Array", 8],
  ] as const)
    restore.push(watch(name, ([n]) => each * count(n)));
  return { [Symbol.dispose]: () => restore.forEach((r) => r()) };
}

/** Runs something while arrays are watched, and says what it asked for. */
export function asking<T>(run: () => T): { result: T; asked: Asked } {
  const asked: Asked = { largest: 0, total: 0 };
  state.open = asked;
  try {
    return { result: run(), asked };
  } finally {
    state.open = null;
  }
}
