import type { ConvPlan } from "../../../core/ops/nondiff/video.ts";
import { plain, type Plain } from "./plain.ts";

export interface Convolution {
  /** Shapes: x [T, Y, X, C], past [P, Y, X, C], w [O, I, kernel, side, side] with I <= C, b [O]. */
  x: Plain;
  /** Frames before x; what is before them is zero. */
  past?: Plain | null;
  w: Plain;
  b?: Plain | null;
  /** Added to the result. */
  residual?: Plain | null;
}

/**
 * y[t, i, j, o] = b[o] + sum over kernel and channels of w * x, zero outside the video. On the doubled grid every pixel
 * of x stands for four. With a split, each part of the channels becomes a frame.
 */
export function conv3d({ x, past = null, w, b = null, residual = null }: Convolution, p: ConvPlan): Plain {
  const [T, Y, X, C] = x.shape;
  const [O, I] = w.shape;
  const P = past ? past.shape[0] : 0;
  const grow = p.upsample ? 2 : 1;
  const frames = Math.max(0, Math.floor((T + p.padT - p.kernel) / p.strideT) + 1);
  const [rows, columns] = [Math.floor(Y / p.stride) * grow, Math.floor(X / p.stride) * grow];
  const width = O / p.split;
  const y = plain([frames * p.split, rows, columns, width]);
  for (let t = 0; t < frames; t++) {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        for (let o = 0; o < O; o++) {
          let sum = b ? b.v[o] : 0;
          for (let dt = 0; dt < p.kernel; dt++) {
            for (let di = 0; di < p.side; di++) {
              for (let dj = 0; dj < p.side; dj++) {
                const frame = t * p.strideT + dt - p.padT;
                const row = Math.floor((i * p.stride + di - p.pad) / grow);
                const column = Math.floor((j * p.stride + dj - p.pad) / grow);
                if (frame < -P || frame >= T || row < 0 || row >= Y || column < 0 || column >= X) continue;
                const from = frame < 0 && past ? past.v : x.v;
                const pixel = (((frame < 0 ? frame + P : frame) * Y + row) * X + column) * C;
                for (let c = 0; c < I; c++) {
                  sum += w.v[(((o * I + c) * p.kernel + dt) * p.side + di) * p.side + dj] * from[pixel + c];
                }
              }
            }
          }
          const part = Math.floor(o / width);
          const at = (((p.split * t + part) * rows + i) * columns + j) * width + (o % width);
          y.v[at] = sum + (residual ? residual.v[at] : 0);
        }
      }
    }
  }
  return y;
}
