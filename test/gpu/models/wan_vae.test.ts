import { describe, expect } from "bun:test";
import type { DType, HostTensor } from "../../../core/dtype.ts";
import { WAN_VAE, type WanVaeConfig } from "../../../core/models/wan_vae/config.ts";
import { WanVae } from "../../../core/models/wan_vae/model.ts";
import type { Device } from "../../../core/tensor.ts";
import { cpu, gpuTier } from "../../harness/device.ts";
import { decodeAll } from "../../harness/golden_vae.ts";
import { relativeError } from "../../harness/golden.ts";
import { checkConv, CONV_CASES_WIDE } from "../../harness/video_cases.ts";

const { device, test } = gpuTier();
const LONG = 240_000;

describe("gpu: conv3d", () => {
  for (const dtype of ["f64", "f32", "bf16", "f16"] as const) {
    for (const c of CONV_CASES_WIDE) {
      test(`${c.name}: ${dtype} against f64 of the CPU`, () => checkConv(device(), c, dtype, cpu()), LONG);
    }
  }
});

/**
 * The real widths at a small size, where the kernels of bf16 are others: at most twice as far from f32 as the CPU's
 * bf16.
 */
describe("gpu: Wan VAE at its real widths", () => {
  const REAL: WanVaeConfig = { ...WAN_VAE, resBlocks: 1 };
  const weights = new Map<string, HostTensor>();
  const make = (d: Device, dtype: DType): WanVae => {
    const vae = WanVae.create(d, REAL, { dtype });
    if (weights.size === 0) {
      const drawn = WanVae.create(cpu(), REAL, { dtype: "f32" });
      drawn.params.init(1);
      for (const [name, t] of drawn.params.entries()) weights.set(name, t);
      drawn.params.flat.free();
    }
    vae.load(weights, "drawn");
    return vae;
  };

  const drawn = (shape: number[]): HostTensor => {
    using _scope = cpu().scope();
    return cpu().randn(shape, "f32", 1, 2).toHost();
  };

  test("decode in bf16, in pieces of any size, and twice the same bits", () => {
    const z = drawn([1, 16, 3, 7, 9]);
    const decode = (d: Device, dtype: DType, chunk: number): Float64Array => {
      using _inner = d.scope();
      const vae = make(d, dtype);
      const frames = decodeAll(vae, d.fromHost(z), { chunk });
      vae.params.flat.free();
      return frames;
    };
    const exact = decode(device(), "f32", 3);
    const bound = 2 * relativeError(decode(cpu(), "bf16", 3), exact);
    for (const chunk of [1, 2, 3]) expect(relativeError(decode(device(), "bf16", chunk), exact)).toBeLessThan(bound);
    expect(decode(device(), "bf16", 3)).toEqual(decode(device(), "bf16", 3));
  }, LONG);

  test("encode in bf16, in pieces of any size", () => {
    const video = drawn([1, 3, 9, 40, 56]);
    const encode = (d: Device, dtype: DType, chunk: number): Float64Array => {
      using _inner = d.scope();
      const vae = make(d, dtype);
      const latent = vae.encode(d.fromHost(video), { chunk }).values();
      vae.params.flat.free();
      return latent;
    };
    const exact = encode(device(), "f32", 3);
    const bound = 2 * relativeError(encode(cpu(), "bf16", 3), exact);
    for (const chunk of [1, 2, 3]) expect(relativeError(encode(device(), "bf16", chunk), exact)).toBeLessThan(bound);
  }, LONG);
});
