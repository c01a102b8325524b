/** Deterministic uniform numbers in [0, 1) for tests. Source: Numerical Recipes' 32-bit linear congruence. */
export function lcg(seed: number): () => number {
  let state = seed >>> 0;
  for (let i = 0; i < 4; i++) state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Standard normal numbers (Box-Muller over `lcg`). */
export function normals(count: number, seed: number, shift = 0): Float32Array {
  const random = lcg(seed);
  return Float32Array.from(
    { length: count },
    () => shift + Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}
