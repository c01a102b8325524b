import { plain, type Plain } from "./plain.ts";

/** [cos(t f_i), sin(t f_i)] with f_i = 10000^(-i / half). Shapes: t [B] -> [B, width]. */
export function timestepEmbed(t: Plain, width: number): Plain {
  const half = width / 2;
  const y = plain([t.v.length, width]);
  for (let b = 0; b < t.v.length; b++) {
    for (let i = 0; i < half; i++) {
      const angle = t.v[b] * 10000 ** (-i / half);
      y.v[b * width + i] = Math.cos(angle);
      y.v[b * width + half + i] = Math.sin(angle);
    }
  }
  return y;
}
