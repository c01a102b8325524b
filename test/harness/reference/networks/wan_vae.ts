import { numel, type DType, type HostTensor } from "../../../../core/dtype.ts";
import {
  decoderLayers, encoderLayers, type VaeLayer, type WanVaeConfig,
} from "../../../../core/models/wan_vae/config.ts";
import { causal, type ConvPlan } from "../../../../core/ops/nondiff/video.ts";
import { add } from "../add.ts";
import { channelNorm } from "../channel_norm.ts";
import { conv3d } from "../conv3d.ts";
import { linear } from "../linear.ts";
import { plain, plainOf, storedAs, type Plain } from "../plain.ts";
import { softmaxRows } from "../softmax_rows.ts";

/**
 * The Wan2.1 autoencoder over whole videos in f64, rounded to `dtype` wherever a tensor is stored. Inside, arrays are
 * those of one sample with channels last, [T, Y, X, C].
 */
export class PlainVae {
  constructor(
    readonly config: WanVaeConfig,
    readonly weights: ReadonlyMap<string, HostTensor>,
    readonly dtype: DType,
  ) {}

  /** Shapes: video [B, 3, T, Y, X] -> normalised latents [B, z, t, y, x]. */
  encode(video: Plain): Plain {
    const { mean, std, zDim } = this.config;
    return eachSample(video, (one) => {
      const start = this.stored(channelsLast(one));
      const h = encoderLayers(this.config).reduce((x, layer) => this.layer(layer, x), start);
      const moments = linear(h, this.matrix("conv1"), this.weight("conv1.bias"));
      return channelsFirst(moments, zDim, (v, c) => (v - mean[c]) / std[c]);
    });
  }

  /** Shapes: normalised latents [B, z, t, y, x] -> video [B, 3, T, Y, X]. */
  decode(latent: Plain): Plain {
    const { mean, std } = this.config;
    return eachSample(latent, (one) => {
      const z = this.stored(channelsLast(one, (v, c) => v * std[c] + mean[c]));
      const start = this.stored(linear(z, this.matrix("conv2"), this.weight("conv2.bias")));
      return channelsFirst(decoderLayers(this.config).reduce((x, layer) => this.layer(layer, x), start), 3);
    });
  }

  private stored(x: Plain): Plain {
    return storedAs(this.dtype, x);
  }
  private weight(name: string): Plain {
    return this.stored(plainOf(this.weights.get(name) as HostTensor));
  }
  private matrix(name: string): Plain {
    const w = this.weight(`${name}.weight`);
    return plain(w.shape.slice(0, 2), w.v);
  }

  private layer(layer: VaeLayer, x: Plain): Plain {
    const { name } = layer;
    switch (layer.kind) {
      case "conv": return this.conv(name, x, causal(3, 3));
      case "residual": {
        const skip = layer.in === layer.out ? x : this.project(`${name}.shortcut`, x);
        const h = this.conv(`${name}.residual.2`, this.norm(`${name}.residual.0`, x, true), causal(3, 3));
        return this.conv(`${name}.residual.6`, this.norm(`${name}.residual.3`, h, true), causal(3, 3), skip);
      }
      case "attention": return this.attention(name, x);
      case "down": {
        const h = this.conv(`${name}.resample.1`, x, causal(1, 3, { stride: 2, pad: 0 }));
        return layer.temporal ? this.halved(`${name}.time_conv`, h) : h;
      }
      case "up": {
        const h = layer.temporal ? this.doubled(`${name}.time_conv`, x) : x;
        return this.enlarged(`${name}.resample.1`, h);
      }
      case "head": return this.conv(`${name}.2`, this.norm(`${name}.0`, x, true), causal(3, 3));
    }
  }

  private conv(name: string, x: Plain, plan: ConvPlan, residual: Plain | null = null): Plain {
    const w = this.weight(`${name}.weight`);
    const kernel = plain([w.shape[0], w.shape[1], plan.kernel, plan.side, plan.side], w.v);
    return this.stored(conv3d({ x, w: kernel, b: this.weight(`${name}.bias`), residual }, plan));
  }

  private norm(name: string, x: Plain, silu: boolean): Plain {
    return this.stored(channelNorm(x, this.weight(`${name}.gamma`), silu));
  }

  private project(name: string, x: Plain): Plain {
    return this.stored(linear(x, this.matrix(name), this.weight(`${name}.bias`)));
  }

  /**
   * One head over the positions of each frame, added to x. Probabilities are stored; as their rows sum to one, the bias
   * of the values is added behind the sum.
   */
  private attention(name: string, x: Plain): Plain {
    const [T, Y, X, C] = x.shape;
    const n = this.norm(`${name}.norm`, x, false);
    const [weight, bias] = [this.matrix(`${name}.to_qkv`), this.weight(`${name}.to_qkv.bias`)];
    const part = (i: number): [Plain, Plain] => [rows(weight, i * C, (i + 1) * C), rows(bias, i * C, (i + 1) * C)];
    const [valueWeight, valueBias] = part(2);
    const attended = Array.from({ length: T }, (_, t) => {
      const frame = plain([Y * X, C], rows(n, t, t + 1).v);
      const [q, k] = [0, 1].map((i) => this.stored(linear(frame, ...part(i))));
      const values = this.stored(linear(valueWeight, frame, null));
      const probabilities = this.stored(softmaxRows(linear(q, k, null), 1 / Math.sqrt(C)));
      return this.stored(linear(probabilities, values, valueBias));
    });
    const o = plain(x.shape, Float64Array.from(attended.flatMap((a) => [...a.v])));
    return this.stored(add(this.project(`${name}.proj`, o), x));
  }

  /** The first frame alone, then every two frames become one that also sees the frame before them. */
  private halved(name: string, x: Plain): Plain {
    return joined(rows(x, 0, 1), this.conv(name, x, causal(3, 1, { strideT: 2, padT: 0 })));
  }

  /** The first frame alone; each later one becomes two, without seeing the first. */
  private doubled(name: string, x: Plain): Plain {
    const rest = rows(x, 1, x.shape[0]);
    return joined(rows(x, 0, 1), this.conv(name, rest, causal(3, 1, { split: 2 })));
  }

  /**
   * A 3x3 convolution on the grid doubled by repetition. What is stored is a kernel on the grid itself for each parity
   * of the output, with the taps that meet in one pixel summed.
   */
  private enlarged(name: string, x: Plain): Plain {
    const [w, b] = [this.weight(`${name}.weight`), this.weight(`${name}.bias`)];
    const [O, I] = w.shape;
    const [T, Y, X] = x.shape;
    const y = plain([T, 2 * Y, 2 * X, O]);
    for (const [py, px] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      const kernel = plain([O, I, 1, 3, 3]);
      w.v.forEach((tap, n) => {
        const [dy, dx] = [Math.floor(n / 3) % 3, n % 3];
        const [row, column] = [Math.floor((py + dy + 1) / 2), Math.floor((px + dx + 1) / 2)];
        kernel.v[Math.floor(n / 9) * 9 + row * 3 + column] += tap;
      });
      const part = conv3d({ x, w: this.stored(kernel), b }, causal(1, 3));
      part.v.forEach((v, n) => {
        const [o, j, i, t] = [n % O, Math.floor(n / O) % X, Math.floor(n / O / X) % Y, Math.floor(n / O / X / Y)];
        y.v[((t * 2 * Y + 2 * i + py) * 2 * X + 2 * j + px) * O + o] = v;
      });
    }
    return this.stored(y);
  }
}

/** Elements [from, to) of the first axis. */
function rows(x: Plain, from: number, to: number): Plain {
  const size = numel(x.shape.slice(1));
  return plain([to - from, ...x.shape.slice(1)], x.v.slice(from * size, to * size));
}

const joined = (a: Plain, b: Plain): Plain =>
  plain([a.shape[0] + b.shape[0], ...a.shape.slice(1)], Float64Array.from([...a.v, ...b.v]));

function eachSample(x: Plain, body: (one: Plain) => Plain): Plain {
  return Array.from({ length: x.shape[0] }, (_, b) => body(rows(x, b, b + 1))).reduce(joined);
}

type Map = (v: number, channel: number) => number;

function channelsLast(x: Plain, map: Map = (v) => v): Plain {
  const [, C, T, Y, X] = x.shape;
  const y = plain([T, Y, X, C]);
  const N = T * Y * X;
  for (let c = 0; c < C; c++) for (let n = 0; n < N; n++) y.v[n * C + c] = map(x.v[c * N + n], c);
  return y;
}

function channelsFirst(x: Plain, channels: number, map: Map = (v) => v): Plain {
  const [T, Y, X, C] = x.shape;
  const y = plain([1, channels, T, Y, X]);
  const N = T * Y * X;
  for (let c = 0; c < channels; c++) for (let n = 0; n < N; n++) y.v[c * N + n] = map(x.v[n * C + c], c);
  return y;
}
