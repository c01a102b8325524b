import { ACTIVATIONS } from "./activation.ts";
import { plain, type Plain } from "./plain.ts";

/** y = x / max(|x|, 1e-12) sqrt(C) gamma over the channels, then SiLU if asked. Shapes: x [..., C], gamma C values. */
export function channelNorm(x: Plain, gamma: Plain, silu: boolean): Plain {
  const C = x.shape[x.shape.length - 1];
  const y = plain(x.shape);
  for (let row = 0; row < x.v.length; row += C) {
    let square = 0;
    for (let c = 0; c < C; c++) square += x.v[row + c] ** 2;
    const length = Math.max(Math.sqrt(square), 1e-12);
    for (let c = 0; c < C; c++) {
      const normed = (x.v[row + c] / length) * Math.sqrt(C) * gamma.v[c];
      y.v[row + c] = silu ? ACTIVATIONS.silu(normed) : normed;
    }
  }
  return y;
}
