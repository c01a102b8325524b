import { dtypeBytes } from "../../dtype.ts";
import { causal, channelNorm, conv3d, project, softmaxRows } from "../../ops/nondiff/video.ts";
import type { ParamSet } from "../../nn/params.ts";
import { statDType, type Tensor } from "../../tensor.ts";
import type { VaeLayer } from "./config.ts";

/** Maximum bytes of attention scores at once. */
const SCORE_BYTES = 2 ** 28;

/**
 * Runs encoder or decoder over one video that arrives in chunks of any length: each causal convolution caches the last
 * frames of its input, so the output does not depend on the chunks. `packed`: packed weights by name.
 */
export class CausalStream {
  private readonly past = new Map<string, Tensor>();
  private started = false;

  constructor(
    private readonly layers: readonly VaeLayer[],
    private readonly params: ParamSet,
    private readonly packed: ReadonlyMap<string, Tensor>,
  ) {}

  /** Runs the next frames through all layers; frees x. Shapes: x [t, Y, X, C]. */
  push(x: Tensor): Tensor {
    const y = this.layers.reduce((h, layer) => this.run(layer, h), x);
    this.started = true;
    return y;
  }

  close(): void {
    for (const t of this.past.values()) t.free();
    this.past.clear();
  }

  private run(layer: VaeLayer, x: Tensor): Tensor {
    switch (layer.kind) {
      case "conv": return this.through(layer.name, x);
      case "residual": return this.residual(layer, x);
      case "attention": return this.attention(layer.name, x);
      case "down": return this.down(layer, x);
      case "up": return this.up(layer, x);
      case "head": return this.through(`${layer.name}.2`, this.normed(`${layer.name}.0`, x, true));
    }
  }

  private tensor(name: string): Tensor {
    return this.params.tensor(name);
  }
  private bias(name: string): Tensor {
    return this.tensor(`${name}.bias`);
  }
  private weights(name: string): Tensor {
    return this.packed.get(name) as Tensor;
  }

  /** Norm and SiLU. */
  private normed(name: string, x: Tensor, inPlace: boolean): Tensor {
    return channelNorm(x, this.tensor(`${name}.gamma`), true, inPlace ? x : null);
  }

  /** A causal 3x3x3 convolution; frees x. */
  private through(name: string, x: Tensor, residual: Tensor | null = null): Tensor {
    const y = conv3d(
      { x, past: this.past.get(name), w: this.weights(name), b: this.bias(name), residual },
      causal(3, 3),
    );
    this.remember(name, x, 2);
    x.free();
    return y;
  }

  /** Caches the last `frames` of (cached frames ++ x) for the next chunk. */
  private remember(name: string, x: Tensor, frames: number): void {
    const [T, ...rest] = x.shape;
    const before = this.past.get(name) ?? null;
    const size = rest.reduce((n, d) => n * d, 1);
    const old = before?.shape[0] ?? 0;
    const keep = Math.min(frames, old + T);
    if (keep === 0) return;
    const kept = x.device.persistent(() => x.device.empty([keep, ...rest], x.dtype));
    const fromOld = Math.max(keep - T, 0);
    if (before && fromOld > 0) {
      kept.window(0, [fromOld * size]).set(before.window((old - fromOld) * size, [fromOld * size]));
    }
    const fromNew = keep - fromOld;
    kept.window(fromOld * size, [fromNew * size]).set(x.window((T - fromNew) * size, [fromNew * size]));
    before?.free();
    this.past.set(name, kept);
  }

  private residual(layer: VaeLayer & { kind: "residual" }, x: Tensor): Tensor {
    const { name } = layer;
    let skip = x;
    if (layer.in !== layer.out) {
      skip = project(x, this.tensor(`${name}.shortcut.weight`), this.bias(`${name}.shortcut`));
    }
    const h = this.through(`${name}.residual.2`, this.normed(`${name}.residual.0`, x, skip !== x));
    const y = this.through(`${name}.residual.6`, this.normed(`${name}.residual.3`, h, true), skip);
    skip.free();
    return y;
  }

  /** Single-head attention over the positions of each frame. */
  private attention(name: string, x: Tensor): Tensor {
    const [T, Y, X, C] = x.shape;
    const [L, { device, dtype }] = [Y * X, x];
    const [weight, bias] = [this.tensor(`${name}.to_qkv.weight`), this.bias(`${name}.to_qkv`)];
    const part = (i: number): [Tensor, Tensor] => [weight.window(i * C * C, [C, C]), bias.window(i * C, [C])];
    const n = channelNorm(x, this.tensor(`${name}.norm.gamma`), false);
    const [q, k] = [project(n, ...part(0)), project(n, ...part(1))];
    const [vWeight, vBias] = part(2);
    const o = device.empty([T * L, C], dtype);
    const stat = statDType(dtype);
    const rows = Math.min(L, Math.max(1, Math.floor(SCORE_BYTES / dtypeBytes(stat) / L)));
    for (let t = 0; t < T; t++) {
      // Values are computed transposed, as the second matmul needs them. Probabilities sum to one, so the bias of the
      // values can be added after it.
      const v = project(vWeight, n.window(t * L * C, [L, C]), null);
      const keys = k.window(t * L * C, [L, C]);
      for (let row = 0; row < L; row += rows) {
        const count = Math.min(rows, L - row);
        const at = (t * L + row) * C;
        const scores = project(q.window(at, [count, C]), keys, null, { dtype: stat });
        const weights = softmaxRows(scores, 1 / Math.sqrt(C), dtype);
        scores.free();
        project(weights, v, vBias, { into: o.window(at, [count, C]) });
        weights.free();
      }
      v.free();
    }
    for (const t of [n, q, k]) t.free();
    const y = project(o, this.tensor(`${name}.proj.weight`), this.bias(`${name}.proj`)).axpy(x);
    o.free();
    x.free();
    return y.view([T, Y, X, C]);
  }

  /** Halves rows and columns, then frames; the video's first frame is only resampled in space. */
  private down({ name, temporal }: VaeLayer & { kind: "down" }, x: Tensor): Tensor {
    const conv = `${name}.resample.1`;
    const h = conv3d({ x, w: this.weights(conv), b: this.bias(conv) }, causal(1, 3, { stride: 2, pad: 0 }));
    x.free();
    if (!temporal) return h;
    const time = `${name}.time_conv`;
    const plan = causal(3, 1, { strideT: 2 });
    const [w, b, past] = [this.weights(time), this.bias(time), this.past.get(time)];
    const [T, Y, X, C] = h.shape;
    let y: Tensor;
    if (past) y = conv3d({ x: h, past, w, b }, { ...plan, padT: 1 });
    else {
      const frame = Y * X * C;
      y = h.device.empty([1 + (T - 1) / 2, Y, X, C], h.dtype);
      y.window(0, [frame]).set(h.window(0, [frame]));
      if (T > 1) conv3d({ x: h, w, b, into: y.window(frame, [(T - 1) / 2, Y, X, C]) }, { ...plan, padT: 0 });
    }
    this.remember(time, h, 1);
    h.free();
    return y;
  }

  /** Doubles frames, then rows and columns. The video's first frame is not doubled, and the others do not see it. */
  private up({ name, temporal }: VaeLayer & { kind: "up" }, x: Tensor): Tensor {
    let h = x;
    if (temporal) {
      const time = `${name}.time_conv`;
      const [T, Y, X, C] = x.shape;
      const frame = Y * X * C;
      const first = this.started ? 0 : 1;
      const rest = x.window(first * frame, [T - first, Y, X, C]);
      h = x.device.empty([first + 2 * (T - first), Y, X, C], x.dtype);
      if (first > 0) h.window(0, [frame]).set(x.window(0, [frame]));
      if (T > first) {
        const into = h.window(first * frame, [2 * (T - first), Y, X, C]);
        conv3d(
          { x: rest, past: this.past.get(time), w: this.weights(time), b: this.bias(time), into },
          causal(3, 1, { split: 2 }),
        );
      }
      this.remember(time, rest, 2);
      x.free();
    }
    const conv = `${name}.resample.1`;
    const y = conv3d({ x: h, w: this.weights(conv), b: this.bias(conv) }, causal(1, 3, { upsample: true }));
    h.free();
    return y;
  }
}
