import { dlopen, ptr } from "bun:ffi";

const NAMES = ["libopenblas.so.0", "libopenblas.so"];

/**
 * Times OpenBLAS with its own threads on n x n x n f32 matmuls, as the baseline of `rcm bench step`. Returns the best
 * rate in FLOP/s, or null if OpenBLAS is not installed.
 */
export function openblasRate(n: number, threads: number, repeats = 5): number | null {
  for (const name of NAMES) {
    try {
      const { symbols } = dlopen(name, {
        openblas_set_num_threads: { args: ["i32"], returns: "void" },
        cblas_sgemm: {
          args: ["i32", "i32", "i32", "i32", "i32", "i32", "f32", "ptr", "i32", "ptr", "i32", "f32", "ptr", "i32"],
          returns: "void",
        },
      });
      const matrix = (): Float32Array =>
        new Float32Array(new ArrayBuffer(4 * n * n)).map((_, i) => ((i * 2654435761) % 1000) / 500 - 1);
      const [a, b, c] = [matrix(), matrix(), matrix()];
      symbols.openblas_set_num_threads(threads);
      let best = 0;
      for (let i = 0; i <= repeats; i++) {
        const t = performance.now();
        symbols.cblas_sgemm(101, 111, 112, n, n, n, 1, ptr(a), n, ptr(b), n, 0, ptr(c), n);
        if (i > 0) best = Math.max(best, (2 * n ** 3) / ((performance.now() - t) / 1000));
      }
      // The CPU backend calls the same library from its own threads, one thread each.
      symbols.openblas_set_num_threads(1);
      return best;
    } catch {
      continue;
    }
  }
  return null;
}
