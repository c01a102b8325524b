import { RcmError } from "../error.ts";
import type { Time } from "../diffusion/predict.ts";
import type { Tensor } from "../tensor.ts";
import { constant, type Var } from "../tape.ts";
import type { DrawNet } from "../networks/draw.ts";
import type { SampleNet } from "../networks/net.ts";

/** Channels that say which pixel frames of a latent frame are given: four pixel frames each. */
export const MASK_CHANNELS = 4;

/** RF time below which the second expert of Wan2.2 takes over. Source: Wan2.2 configuration. */
export const EXPERT_BOUNDARY = 0.9;

/**
 * What the network sees of the picture: a mask that is 1 in the first latent frame and 0 after it, then the latent of the picture
 * followed by grey frames. Shapes: latent [1, T, C, Y, X] -> [1, T, 4 + C, Y, X] f32. Source: public rCM code of Wan2.2 I2V.
 */
export function pictureCondition(latent: Tensor): Tensor {
  const [B, T, , Y, X] = latent.shape;
  if (B !== 1) throw new RcmError("E_SHAPE", "one picture at a time", { op: "i2v", want: 1, got: B });
  using scope = latent.device.scope();
  const mask = latent.device.zeros([1, T, MASK_CHANNELS, Y, X], "f32");
  mask.window(0, [MASK_CHANNELS, Y, X]).fill(1);
  return scope.keep(concatChannels(mask, latent.to("f32")));
}

/**
 * Channels of `x`, then those of `more`, which may be one sample for all.
 * Shapes: [B, T, C, Y, X], [B | 1, T, D, Y, X] -> [B, T, C + D, Y, X].
 */
export function concatChannels(x: Tensor, more: Tensor): Tensor {
  const [B, T, C, ...rest] = x.shape;
  const [one, frames, D, ...same] = more.shape;
  if ((one !== 1 && one !== B) || frames !== T || same.length !== rest.length || same.some((d, i) => d !== rest[i])) {
    throw new RcmError("E_SHAPE", "channels of other latents", { op: "concat", want: x.shape, got: more.shape });
  }
  const out = x.device.empty([B, T, C + D, ...rest], x.dtype);
  const [nx, nm] = [x.numel / (B * T), more.numel / (one * T)];
  for (let frame = 0; frame < B * T; frame++) {
    out.window(frame * (nx + nm), [nx]).set(x.window(frame * nx, [nx]));
    out.window(frame * (nx + nm) + nx, [nm]).set(more.window((one === 1 ? frame % T : frame) * nm, [nm]));
  }
  return out;
}

/** A network that sees a picture beside the noisy latent. For inference: no tangent or gradient passes to x. */
export function withPicture({ velocity, meanVelocity }: DrawNet, condition: Tensor): DrawNet {
  const joined = (x: Var): Var => constant(concatChannels(x.x, condition));
  return {
    velocity: (tape, x, tRf, text) => velocity(tape, joined(x), tRf, text),
    meanVelocity: meanVelocity && ((tape, x, t, r, text) => meanVelocity(tape, joined(x), t, r, text)),
  };
}

/**
 * Two experts as one network: `high` for RF times from the boundary up, `low` below. The one that rests gives its device memory
 * back, as far as it can. All samples of a call share a time. Source: Wan2.2 A14B.
 */
export function experts(high: SampleNet, low: SampleNet, boundary = EXPERT_BOUNDARY): SampleNet {
  const at = ({ t }: Time): SampleNet => {
    const noisy = t[0] >= boundary;
    const [works, rests] = noisy ? [high, low] : [low, high];
    if (t.some((one) => one >= boundary !== noisy)) {
      const detail = { op: "experts", want: boundary, got: [...t] };
      throw new RcmError("E_ARG", "samples of one call lie on both sides of the boundary", detail);
    }
    rests.release();
    return works;
  };
  return {
    spec: high.spec,
    velocity: (tape, x, tRf, text) => at(tRf).velocity(tape, x, tRf, text),
    meanVelocity: null,
    release() {
      high.release();
      low.release();
    },
    [Symbol.dispose]() {
      high[Symbol.dispose]();
      low[Symbol.dispose]();
    },
  };
}
