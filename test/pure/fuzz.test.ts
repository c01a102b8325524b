import { describe, expect, test } from "bun:test";
import { fuzz, inputOf } from "../fuzz/fuzz.ts";
import { TARGETS, type Target } from "../fuzz/targets.ts";

/** A short run of every target; `sh cli/bun.sh test/fuzz/run.ts` is the long one. */
describe("damaged inputs end in a value or an RcmError, soon, without asking for much memory", () => {
  for (const target of TARGETS) {
    test(target.name, () => {
      const undamaged = fuzz({ ...target, make: () => target.valid }, 7, 0, 1);
      expect(undamaged.ends).toEqual({ value: 1 });
      const { inputs, ends, findings } = fuzz(target, 7, 0, 150);
      expect(findings.map(({ index, what }) => ({ index, what }))).toEqual([]);
      expect(inputs).toBe(150);
      // Damage is found, and some of it is harmless: both sides of the reader are reached.
      expect(Object.keys(ends).filter((k) => k !== "value").length).toBeGreaterThan(0);
    }, 120_000);
  }

  test("the same seed and number give the same input", () => {
    for (const target of TARGETS) expect([...inputOf(target, 7, 3)]).toEqual([...inputOf(target, 7, 3)]);
  });

  test("what the fuzzer looks for, it finds", () => {
    const bad = (run: () => void): string => {
      const valid = new Map([["a", new Uint8Array(10)]]);
      const target: Target = { name: "bad", valid, make: () => valid, run };
      return fuzz(target, 1, 0, 1, { cpuMs: 200 }).findings.map((f) => f.what).join();
    };
    expect(bad(() => {})).toBe("");
    expect(bad(() => void (null as unknown as { x: number }).x)).toContain("TypeError");
    expect(bad(() => void new Uint8Array(1 << 22))).toContain("array of 4194304 bytes");
    expect(bad(() => { for (let i = 0; i < 40; i++) new ArrayBuffer(1 << 20); })).toContain("in all");
    const spent = (): number => process.cpuUsage().user / 1000;
    expect(bad(() => { for (const end = spent() + 300; spent() < end; ); })).toContain("took");
    expect(new Uint8Array(1).constructor).toBe(Uint8Array);
  }, 30_000);
});
