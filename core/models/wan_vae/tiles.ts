import { RcmError } from "../../error.ts";

/** A rectangle of latent cells; top, bottom, left, right: its overlap with each neighbour (0 at the border). */
export interface Tile {
  y: number;
  x: number;
  h: number;
  w: number;
  top: number;
  bottom: number;
  left: number;
  right: number;
  whole: boolean;
}

interface Span {
  at: number;
  size: number;
  before: number;
  after: number;
}

/** Spans of `size` (the last may be shorter) that cover n and overlap by `overlap`; at most two cover any position. */
function spans(n: number, size: number, overlap: number): Span[] {
  if (n <= size) return [{ at: 0, size: n, before: 0, after: 0 }];
  const count = Math.ceil((n - overlap) / (size - overlap));
  return Array.from({ length: count }, (_, i) => {
    const [at, last] = [i * (size - overlap), i === count - 1];
    return { at, size: last ? n - at : size, before: i === 0 ? 0 : overlap, after: last ? 0 : overlap };
  });
}

/**
 * Tiles that cover h x w latent cells; null: a single one.
 * Throws: E_ARG unless the overlap is less than half a tile.
 */
export function tiles(h: number, w: number, tile: { size: number; overlap: number } | null): Tile[] {
  if (tile === null) return [{ y: 0, x: 0, h, w, top: 0, bottom: 0, left: 0, right: 0, whole: true }];
  const { size, overlap } = tile;
  if (!(overlap >= 0 && 2 * overlap < size)) {
    throw new RcmError("E_ARG", "tiles overlap by less than half", {
      op: "vae tiles",
      want: `overlap < ${size / 2}`,
      got: overlap,
    });
  }
  const [rows, columns] = [spans(h, size, overlap), spans(w, size, overlap)];
  const whole = rows.length === 1 && columns.length === 1;
  return rows.flatMap((r) =>
    columns.map((c) => ({
      y: r.at,
      x: c.at,
      h: r.size,
      w: c.size,
      top: r.before,
      bottom: r.after,
      left: c.before,
      right: c.after,
      whole,
    })),
  );
}
