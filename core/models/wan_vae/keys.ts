import { numel } from "../../dtype.ts";
import type { ParamSpec } from "../../nn/params.ts";
import { decoderLayers, encoderLayers, type VaeLayer, type WanVaeConfig } from "./config.ts";

/** A convolution: name, channels, kernel frames and side, and whether it upsamples 2x first. */
export interface VaeConv {
  name: string;
  out: number;
  in: number;
  kt: number;
  k: number;
  upsample: boolean;
}

/** Convolutions of a layer that are not 1x1x1 (those are linear layers). */
export function convsOf(layer: VaeLayer): VaeConv[] {
  const conv = (name: string, out: number, inner: number, shape: Partial<VaeConv> = {}): VaeConv => ({
    ...{ name, out, in: inner, kt: 3, k: 3, upsample: false },
    ...shape,
  });
  const { name } = layer;
  if (layer.kind === "conv") return [conv(name, layer.out, layer.in)];
  if (layer.kind === "residual") {
    return [conv(`${name}.residual.2`, layer.out, layer.in), conv(`${name}.residual.6`, layer.out, layer.out)];
  }
  if (layer.kind === "head") return [conv(`${name}.2`, layer.out, layer.in)];
  if (layer.kind === "down") {
    return [
      conv(`${name}.resample.1`, layer.dim, layer.dim, { kt: 1 }),
      ...(layer.temporal ? [conv(`${name}.time_conv`, layer.dim, layer.dim, { k: 1 })] : []),
    ];
  }
  if (layer.kind === "up") {
    return [
      conv(`${name}.resample.1`, layer.dim / 2, layer.dim, { kt: 1, upsample: true }),
      ...(layer.temporal ? [conv(`${name}.time_conv`, 2 * layer.dim, layer.dim, { k: 1 })] : []),
    ];
  }
  return [];
}

function layerParams(layer: VaeLayer): ParamSpec[] {
  const specs: ParamSpec[] = [];
  const kernel = (name: string, shape: number[]): void => {
    specs.push(
      { name: `${name}.weight`, shape, init: { kind: "normal", std: Math.sqrt(1 / numel(shape.slice(1))) } },
      { name: `${name}.bias`, shape: [shape[0]], init: { kind: "zeros" } },
    );
  };
  const gamma = (name: string, shape: number[]): void =>
    void specs.push({ name: `${name}.gamma`, shape, init: { kind: "ones" } });
  const { name } = layer;
  // Spatial resampling kernels are stored as 2D kernels.
  const convs = (): void =>
    convsOf(layer).forEach((c) =>
      kernel(c.name, [c.out, c.in, ...(c.name.endsWith("resample.1") ? [] : [c.kt]), c.k, c.k]),
    );
  if (layer.kind === "residual") {
    gamma(`${name}.residual.0`, [layer.in, 1, 1, 1]);
    gamma(`${name}.residual.3`, [layer.out, 1, 1, 1]);
    convs();
    if (layer.in !== layer.out) kernel(`${name}.shortcut`, [layer.out, layer.in, 1, 1, 1]);
  } else if (layer.kind === "attention") {
    gamma(`${name}.norm`, [layer.dim, 1, 1]);
    kernel(`${name}.to_qkv`, [3 * layer.dim, layer.dim, 1, 1]);
    kernel(`${name}.proj`, [layer.dim, layer.dim, 1, 1]);
  } else {
    if (layer.kind === "head") gamma(`${name}.0`, [layer.in, 1, 1, 1]);
    convs();
  }
  return specs;
}

/** Every parameter under its key in Wan2.1_VAE.pth. */
export function wanVaeParams(c: WanVaeConfig): ParamSpec[] {
  const point = (name: string, n: number): ParamSpec[] => [
    { name: `${name}.weight`, shape: [n, n, 1, 1, 1], init: { kind: "normal", std: Math.sqrt(1 / n) } },
    { name: `${name}.bias`, shape: [n], init: { kind: "zeros" } },
  ];
  return [
    ...encoderLayers(c).flatMap(layerParams),
    ...point("conv1", 2 * c.zDim),
    ...point("conv2", c.zDim),
    ...decoderLayers(c).flatMap(layerParams),
  ];
}

/** Maps a key of diffusers' AutoencoderKLWan to the original one; null for other keys. Original keys stay unchanged. */
export function vaeKeyToOriginal(key: string, c: WanVaeConfig): string | null {
  if (/^(encoder\.(conv1|downsamples|middle|head)|decoder\.(conv1|upsamples|middle|head)|conv1|conv2)\./.test(key)) {
    return key;
  }
  const rest = (tail: string): string => {
    const named: Record<string, string> = { "norm1.gamma": "residual.0.gamma", "norm2.gamma": "residual.3.gamma" };
    return (
      named[tail] ??
      tail
        .replace(/^conv1\./, "residual.2.")
        .replace(/^conv2\./, "residual.6.")
        .replace(/^conv_shortcut\./, "shortcut.")
    );
  };
  let m = /^(quant_conv|post_quant_conv)\.(\w+)$/.exec(key);
  if (m) return `${m[1] === "quant_conv" ? "conv1" : "conv2"}.${m[2]}`;
  m = /^(encoder|decoder)\.(conv_in|norm_out|conv_out)\.(\w+)$/.exec(key);
  if (m) return `${m[1]}.${{ conv_in: "conv1", norm_out: "head.0", conv_out: "head.2" }[m[2]]}.${m[3]}`;
  m = /^(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)$/.exec(key);
  if (m) return m[2] === "attentions" ? `${m[1]}.middle.1.${m[4]}` : `${m[1]}.middle.${2 * Number(m[3])}.${rest(m[4])}`;
  m = /^encoder\.down_blocks\.(\d+)\.(.+)$/.exec(key);
  if (m) return `encoder.downsamples.${m[1]}.${rest(m[2])}`;
  m = /^decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.(.+)$/.exec(key);
  if (m) {
    const inLevel = m[2] === "resnets" ? Number(m[3]) : c.resBlocks + 1;
    return `decoder.upsamples.${Number(m[1]) * (c.resBlocks + 2) + inLevel}.${rest(m[4])}`;
  }
  return null;
}
