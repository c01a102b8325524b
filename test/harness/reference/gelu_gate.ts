import { ACTIVATIONS } from "./activation.ts";
import { plain, type Plain } from "./plain.ts";

/** y = x gelu(g), the tanh form. Shapes: any, equal. */
export const geluGate = (x: Plain, g: Plain): Plain =>
  plain(
    x.shape,
    x.v.map((v, i) => v * ACTIVATIONS.gelu_tanh(g.v[i])),
  );
