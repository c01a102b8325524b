import { describe, expect, test } from "bun:test";
import type { activationOp } from "../../../core/ops/activation.ts";
import type { adaLayerNormOp } from "../../../core/ops/ada_layer_norm.ts";
import type { attentionOp } from "../../../core/ops/attention.ts";
import type { crossEntropyOp } from "../../../core/ops/cross_entropy.ts";
import type { gateResidualOp } from "../../../core/ops/gate_residual.ts";
import type { layerNormOp } from "../../../core/ops/layer_norm.ts";
import type { lincombOp } from "../../../core/ops/lincomb.ts";
import type { linearGeluOp } from "../../../core/ops/linear_gelu.ts";
import type { patchifyOp } from "../../../core/ops/patchify.ts";
import type { rmsNormRopeOp } from "../../../core/ops/rms_norm_rope.ts";
import type { sqLossOp } from "../../../core/ops/sq_loss.ts";
import type { timestepEmbedOp } from "../../../core/ops/timestep_embed.ts";
import type { unpatchifyOp } from "../../../core/ops/unpatchify.ts";
import type { Tensor } from "../../../core/tensor.ts";
import { caseInputs, evaluateCase } from "../../harness/check_op.ts";
import { cpu } from "../../harness/device.ts";
import { relativeError } from "../../harness/golden.ts";
import { OP_CASES } from "../../harness/op_cases.ts";
import { activation } from "../../harness/reference/activation.ts";
import { adaLayerNorm } from "../../harness/reference/ada_layer_norm.ts";
import { add } from "../../harness/reference/add.ts";
import { addModulation } from "../../harness/reference/add_modulation.ts";
import { attention } from "../../harness/reference/attention.ts";
import { crossEntropy } from "../../harness/reference/cross_entropy.ts";
import { gateResidual } from "../../harness/reference/gate_residual.ts";
import { layerNorm } from "../../harness/reference/layer_norm.ts";
import { lincomb } from "../../harness/reference/lincomb.ts";
import { linear } from "../../harness/reference/linear.ts";
import { linearGelu } from "../../harness/reference/linear_gelu.ts";
import { patchify } from "../../harness/reference/patchify.ts";
import { plain, plainOf, type Plain } from "../../harness/reference/plain.ts";
import { rmsNormRope } from "../../harness/reference/rms_norm_rope.ts";
import { sqLoss } from "../../harness/reference/sq_loss.ts";
import { timestepEmbed } from "../../harness/reference/timestep_embed.ts";
import { unpatchify } from "../../harness/reference/unpatchify.ts";

/** The CPU library in f64 against plain loops, for every op and every case of the table. */

type Params<O extends { forward: (...args: never[]) => unknown }> = Parameters<O["forward"]>[1];
type Inputs = readonly Plain[];
const given = (t: Tensor): Plain => plainOf(t.toHost());
const optional = (t: Tensor | null): Plain | null => t && given(t);

const REFERENCES: Record<string, (x: Inputs, p: never) => Plain> = {
  activation: ([x], p: Params<typeof activationOp>) => activation(x, p.kind),
  ada_layer_norm: ([x, modulation], p: Params<typeof adaLayerNormOp>) => adaLayerNorm(x, modulation, p),
  add: ([a, b]) => add(a, b),
  add_modulation: ([p, e]) => addModulation(p, e),
  attention: ([q, k, v], { heads, scale }: Params<typeof attentionOp>) =>
    attention(q, k, v, { heads, scale: scale ?? 1 / Math.sqrt(q.shape[2] / heads) }),
  cross_entropy: ([x], p: Params<typeof crossEntropyOp>) => crossEntropy(x, given(p.label)),
  gate_residual: ([x, h, modulation], p: Params<typeof gateResidualOp>) => gateResidual(x, h, modulation, p.gate),
  layer_norm: ([x, w, b], p: Params<typeof layerNormOp>) => layerNorm(x, w, b, p.eps),
  lincomb: (x, p: Params<typeof lincombOp>) => lincomb(x, p.coef.map((c) => c.value)),
  linear: ([x, w, b]) => linear(x, w, b),
  linear_gelu: ([x, w, b], p: Params<typeof linearGeluOp>) => linearGelu(x, w, b, p.kind),
  patchify: ([x], p: Params<typeof patchifyOp>) => patchify(x, p),
  rms_norm_rope: ([x, w], { rope, ...p }: Params<typeof rmsNormRopeOp>) =>
    rmsNormRope(x, w, { ...p, rope: rope && { cos: given(rope.cos), sin: given(rope.sin), pairing: p.pairing } }),
  sq_loss: ([x], p: Params<typeof sqLossOp>) => sqLoss(x, optional(p.target), optional(p.delta), p.weight),
  timestep_embed: ([t], p: Params<typeof timestepEmbedOp>) => timestepEmbed(t, p.width),
  unpatchify: ([x], p: Params<typeof unpatchifyOp>) => unpatchify(x, p),
};

for (const [name, { op, cases }] of Object.entries(OP_CASES)) {
  describe(name, () => {
    for (const c of cases) {
      test(`${c.name}: plain loops`, () => {
        using _scope = cpu().scope();
        const x = caseInputs(cpu(), c, 10, "f64");
        const inputs = x.map((v, i) => v && plain(c.shapes[i] as readonly number[], v)) as Plain[];
        const want = REFERENCES[name](inputs, c.params(cpu(), "f64") as never);
        const { y } = evaluateCase(cpu(), op, c, x, null, null, "f64");
        expect(relativeError(y, want.v)).toBeLessThan(1e-12);
      });
    }
  });
}
