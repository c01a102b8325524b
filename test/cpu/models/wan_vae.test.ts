import { describe, expect, test } from "bun:test";
import type { DType } from "../../../core/dtype.ts";
import { WAN_VAE, type WanVaeConfig } from "../../../core/models/wan_vae/config.ts";
import { vaeKeyToOriginal, wanVaeParams } from "../../../core/models/wan_vae/keys.ts";
import { WanVae } from "../../../core/models/wan_vae/model.ts";
import { tiles } from "../../../core/models/wan_vae/tiles.ts";
import { blendTile, causal, conv3d, packConv } from "../../../core/ops/nondiff/video.ts";
import { cpu } from "../../harness/device.ts";
import { decodeAll } from "../../harness/golden_vae.ts";
import { relativeError } from "../../harness/golden.ts";

const TINY: WanVaeConfig = { ...WAN_VAE, dim: 4, resBlocks: 1 };
const tiny = (dtype: DType = "f64"): WanVae => {
  const vae = WanVae.create(cpu(), TINY, { dtype });
  vae.params.init(1);
  return vae;
};

describe("conv3d", () => {
  test("wrong geometry is refused", () => {
    using _scope = cpu().scope();
    const [x, w] = [cpu().zeros([2, 4, 4, 3], "f32"), cpu().zeros([4, 3, 3, 3, 3], "f32")];
    const packed = packConv(w, 3, causal(3, 3));
    expect(() => conv3d({ x, w: packed, past: cpu().zeros([3, 4, 4, 3], "f32") }, causal(3, 3))).toThrow("[conv3d]");
    expect(() => conv3d({ x: cpu().zeros([2, 4, 4, 4], "f32"), w: packed }, causal(3, 3))).toThrow(
      "w has the wrong shape",
    );
    expect(() => conv3d({ x: x.to("bf16"), w: packed }, causal(3, 3))).toThrow("w has the wrong dtype");
    expect(() => packConv(w, 2, causal(3, 3))).toThrow("[conv3d_pack]");
    expect(() => conv3d({ x, w: packed }, { ...causal(3, 3), split: 3 })).toThrow("split");
  });
});

describe("tiles", () => {
  test.each([
    [60, 104, 32, 8], [33, 32, 32, 8], [7, 90, 10, 4], [5, 5, 8, 2], [100, 9, 9, 0],
  ])("%d x %d in tiles of %d, overlap %d, sum to one", (h, w, size, overlap) => {
    using _scope = cpu().scope();
    const sum = cpu().zeros([1, h, w], "f64");
    for (const t of tiles(h, w, { size, overlap })) {
      expect(Math.max(t.h, t.w)).toBeLessThanOrEqual(size);
      const one = cpu().empty([1, t.h, t.w], "f64");
      one.fill(1);
      blendTile(one, sum, [t.y, t.x], t);
    }
    expect(Math.max(...sum.values().map((v) => Math.abs(v - 1)))).toBeLessThan(1e-12);
  });
  test("an overlap of half a tile is refused", () =>
    expect(() => tiles(20, 20, { size: 8, overlap: 4 })).toThrow("[vae tiles]"));
});

describe("Wan VAE", () => {
  test("does not depend on the pieces", () => {
    using _scope = cpu().scope();
    const vae = tiny();
    const video = cpu().randn([2, 3, 17, 16, 8], "f64", 1, 2);
    const latents = [1, 2, 3, 5].map((chunk) => vae.encode(video, { chunk }));
    for (const l of latents)
      expect([l.shape, relativeError(l.values(), latents[0].values()) < 1e-12]).toEqual([[2, 16, 5, 2, 1], true]);
    const frames = [1, 2, 3, 5].map((chunk) => decodeAll(vae, latents[0], { chunk }));
    for (const f of frames)
      expect([f.length, relativeError(f, frames[0]) < 1e-12]).toEqual([2 * 3 * 17 * 16 * 8, true]);
  });

  test("a later frame changes nothing before it", () => {
    using _scope = cpu().scope();
    const vae = tiny();
    const [a, b] = [cpu().randn([1, 3, 9, 8, 8], "f64", 1, 2), cpu().randn([1, 3, 9, 8, 8], "f64", 1, 2)];
    for (let c = 0; c < 3; c++) b.window((c * 9 + 5) * 64, [4 * 64]).zero();
    const [la, lb] = [vae.encode(a), vae.encode(b)].map((l) => l.values());
    const differs = (t: number): boolean =>
      Array.from({ length: 16 }, (_, c) => la[c * 3 + t] !== lb[c * 3 + t]).some(Boolean);
    expect([0, 1, 2].map(differs)).toEqual([false, false, true]);
  });

  test("tiles: one that covers all changes nothing, smaller ones stay close where they do not meet", () => {
    using _scope = cpu().scope();
    const vae = tiny();
    const latent = cpu().randn([1, 16, 2, 5, 6], "f64", 1, 2);
    const whole = decodeAll(vae, latent);
    expect(decodeAll(vae, latent, { tile: { size: 8, overlap: 2 } })).toEqual(whole);
    const tiled = decodeAll(vae, latent, { tile: { size: 4, overlap: 1 }, chunk: 1 });
    expect([tiled.length, tiled.every(Number.isFinite), relativeError(tiled, whole) < 1]).toEqual([
      whole.length, true, true,
    ]);
    const video = cpu().randn([1, 3, 5, 32, 24], "f64", 1, 2);
    expect(vae.encode(video, { tile: { size: 8, overlap: 2 } }).values()).toEqual(vae.encode(video).values());
    const small = vae.encode(video, { tile: { size: 3, overlap: 1 } });
    expect([small.shape, small.values().every(Number.isFinite)]).toEqual([[1, 16, 2, 4, 3], true]);
  });

  test("memory of a decode does not grow with the length", () => {
    using _scope = cpu().scope();
    const vae = tiny("f32");
    const peak = (t: number): number => {
      using _inner = cpu().scope();
      const latent = cpu().randn([1, 16, t, 2, 2], "f32", 1, 2);
      cpu().resetPeak();
      const before = cpu().memory().current;
      let frames = 0;
      vae.decode(latent, (f) => void (frames += f.shape[2]), { chunk: 2 });
      expect([frames, cpu().memory().current]).toEqual([1 + 4 * (t - 1), before]);
      return cpu().memory().peak - before;
    };
    const [short, long] = [peak(4), peak(12)];
    expect(long).toBeLessThanOrEqual(short);
  });

  test("a sink that throws leaves no memory behind", () => {
    using _scope = cpu().scope();
    const vae = tiny("f32");
    const latent = cpu().randn([1, 16, 3, 2, 2], "f32", 1, 2);
    const before = cpu().memory().current;
    expect(() => vae.decode(latent, () => { throw new Error("full"); }, { chunk: 1 })).toThrow("full");
    expect(cpu().memory().current).toBe(before);
  });

  test("wrong shapes are refused", () => {
    using _scope = cpu().scope();
    const vae = tiny("f32");
    expect(() => vae.encode(cpu().zeros([1, 3, 4, 8, 8], "f32"))).toThrow("[vae encode]");
    expect(() => vae.encode(cpu().zeros([1, 3, 5, 12, 8], "f32"))).toThrow("[vae encode]");
    expect(() => vae.encode(cpu().zeros([1, 4, 5, 8, 8], "f32"))).toThrow("[vae encode]");
    expect(() => vae.decode(cpu().zeros([1, 8, 2, 2, 2], "f32"), () => {})).toThrow("[vae decode]");
  });
});

describe("keys", () => {
  const names = wanVaeParams(WAN_VAE).map((p) => p.name);
  test("of the public autoencoder", () => {
    expect(names.length).toBe(194);
    expect(wanVaeParams(WAN_VAE).reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0)).toBe(126_892_531);
    expect(names.every((n) => vaeKeyToOriginal(n, WAN_VAE) === n)).toBe(true);
  });
  test("of diffusers", () => {
    const pairs: [string, string][] = [
      ["encoder.conv_in.weight", "encoder.conv1.weight"],
      ["encoder.down_blocks.0.norm1.gamma", "encoder.downsamples.0.residual.0.gamma"],
      ["encoder.down_blocks.3.conv_shortcut.bias", "encoder.downsamples.3.shortcut.bias"],
      ["encoder.down_blocks.5.time_conv.weight", "encoder.downsamples.5.time_conv.weight"],
      ["encoder.down_blocks.2.resample.1.weight", "encoder.downsamples.2.resample.1.weight"],
      ["encoder.mid_block.resnets.1.conv2.weight", "encoder.middle.2.residual.6.weight"],
      ["encoder.mid_block.attentions.0.to_qkv.bias", "encoder.middle.1.to_qkv.bias"],
      ["encoder.norm_out.gamma", "encoder.head.0.gamma"],
      ["encoder.conv_out.bias", "encoder.head.2.bias"],
      ["quant_conv.weight", "conv1.weight"],
      ["post_quant_conv.bias", "conv2.bias"],
      ["decoder.up_blocks.0.resnets.2.norm2.gamma", "decoder.upsamples.2.residual.3.gamma"],
      ["decoder.up_blocks.0.upsamplers.0.time_conv.bias", "decoder.upsamples.3.time_conv.bias"],
      ["decoder.up_blocks.2.upsamplers.0.resample.1.weight", "decoder.upsamples.11.resample.1.weight"],
      ["decoder.up_blocks.3.resnets.2.conv1.weight", "decoder.upsamples.14.residual.2.weight"],
    ];
    for (const [from, to] of pairs) {
      expect(vaeKeyToOriginal(from, WAN_VAE)).toBe(to);
      expect(names).toContain(to);
    }
    expect(vaeKeyToOriginal("blocks.0.self_attn.q.weight", WAN_VAE)).toBeNull();
  });
});
