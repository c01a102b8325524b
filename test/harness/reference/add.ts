import { plain, type Plain } from "./plain.ts";

/** y = a + b. Shapes: any, equal. */
export function add(a: Plain, b: Plain): Plain {
  const y = plain(a.shape);
  for (let i = 0; i < y.v.length; i++) y.v[i] = a.v[i] + b.v[i];
  return y;
}
