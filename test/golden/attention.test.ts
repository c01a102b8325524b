import { describe, expect } from "bun:test";
import { hostValues, type DType, type HostTensor } from "../../core/dtype.ts";
import { attention } from "../../core/ops/attention.ts";
import type { Tensor } from "../../core/tensor.ts";
import { leaf, Tape } from "../../core/tape.ts";
import { onEachDevice } from "../harness/device.ts";
import { golden, relativeError } from "../harness/golden.ts";

const flat = (t: HostTensor): number[] => [t.shape[0], t.shape[1], t.shape[2] * t.shape[3]];

/** Attention, its tangent and its gradients against the golden vectors. */

onEachDevice((device, test) => {
  for (const file of ["attention_jvp_self", "attention_jvp_cross"]) {
    const g = golden(`${file}.safetensors`);
    for (const [dtype, tolO, tolDot] of [["f32", 1e-5, 1e-4], ["f64", 2e-7, 5e-7]] as const) {
      describe(`${file}, ${dtype}`, () => {
        const up = (name: string): Tensor => device().fromHost(g.get(name)).to(dtype as DType).view(flat(g.get(name)));
        const close = (got: Tensor, name: string, tol: number): void =>
          expect(relativeError(got.values(), hostValues(g.get(name)))).toBeLessThan(tol);
        const heads = g.get("q").shape[2];

        test("value, tangent and gradients in one pass", () => {
          using _scope = device().scope();
          const tape = new Tape(device(), { record: true });
          const [q, k, v] = ["q", "k", "v"].map((n) => leaf(up(n), up(`t${n}`)));
          const o = attention(tape, { q, k, v }, heads);
          close(o.x, "o", tolO);
          close(o.dot as Tensor, "to", tolDot);
          tape.backward(o, up("do"));
          for (const [name, x] of [["dq", q], ["dk", k], ["dv", v]] as const)
            close(x.node?.bar as Tensor, name, tolDot);
        });

        if (g.has("to_tkv_zero")) {
          test("keys and values without tangent", () => {
            using _scope = device().scope();
            const tape = new Tape(device(), { record: false });
            const o = attention(tape, { q: leaf(up("q"), up("tq")), k: leaf(up("k")), v: leaf(up("v")) }, heads);
            close(o.dot as Tensor, "to_tkv_zero", tolDot);
          });
        }

        test("log-sum-exp", () => {
          using _scope = device().scope();
          const { lib } = device();
          const [q, k, v] = ["q", "k", "v"].map(up);
          const [B, Lq, H, K] = g.get("q").shape;
          const Lk = g.get("k").shape[1];
          const lse = device().empty(g.get("lse").shape, dtype);
          const [o, scale] = [device().empty(q.shape, dtype), 1 / Math.sqrt(K)];
          lib.attentionFwd({
            q: q.ptr, k: k.ptr, v: v.ptr, o: o.ptr, lse: lse.ptr, B, H, Lq, Lk, K, Kv: K, scale,
            dtype: q.code,
          });
          close(lse, "lse", tolO);
        });
      });
    }
  }
});
