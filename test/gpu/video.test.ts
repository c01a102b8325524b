import { describe, expect } from "bun:test";
import { WAN_VAE, type WanVaeConfig } from "../../core/models/wan_vae/config.ts";
import { WanVae } from "../../core/models/wan_vae/model.ts";
import type { DType } from "../../core/dtype.ts";
import { cpu, gpuTier } from "../harness/device.ts";
import { decodeAll } from "../harness/golden_vae.ts";
import { relativeError } from "../harness/golden.ts";
import { checkConv, CONV_CASES, CONV_CASES_WIDE } from "../harness/video_cases.ts";
import { videoHelperTests } from "../harness/video_helpers.ts";

const { device, test } = gpuTier();
const LONG = 120_000;
const DTYPES = ["f64", "f32", "bf16", "f16"] as const;

describe("gpu: conv3d", () => {
  for (const dtype of DTYPES) {
    for (const c of CONV_CASES) test(`${c.name}: ${dtype}`, () => checkConv(device(), c, dtype), LONG);
    for (const c of CONV_CASES_WIDE) test(`${c.name}: ${dtype} against f64 of the CPU`, () => checkConv(device(), c, dtype, cpu()), LONG);
  }
});

videoHelperTests(device, test, DTYPES);

/** The real widths at a small size: bf16, whose kernels are others, beside f32. */
describe("gpu: Wan VAE at its real widths", () => {
  const REAL: WanVaeConfig = { ...WAN_VAE, resBlocks: 1 };
  const make = (dtype: DType): WanVae => {
    const vae = WanVae.create(device(), REAL, { dtype });
    vae.params.init(1);
    return vae;
  };
  test("decode and encode in bf16 follow f32", () => {
    using _scope = device().scope();
    const [exact, half] = [make("f32"), make("bf16")];
    const latent = device().randn([1, 16, 3, 11, 13], "f32", 1, 2);
    const want = decodeAll(exact, latent);
    for (const chunk of [1, 2, 3]) expect(relativeError(decodeAll(half, latent, { chunk }), want)).toBeLessThan(0.1);
    const video = device().randn([1, 3, 9, 72, 104], "f32", 1, 3);
    const moments = exact.encode(video).values();
    for (const chunk of [1, 2, 3]) expect(relativeError(half.encode(video, { chunk }).values(), moments)).toBeLessThan(0.1);
  }, LONG);
  test("two passes are bitwise equal, other pieces agree", () => {
    using _scope = device().scope();
    const half = make("bf16");
    const latent = device().randn([1, 16, 4, 9, 10], "f32", 1, 2);
    const first = decodeAll(half, latent, { chunk: 4 });
    for (const chunk of [4, 2, 1]) expect(relativeError(decodeAll(half, latent, { chunk }), first)).toBeLessThan(chunk === 4 ? Number.MIN_VALUE : 0.05);
  }, LONG);
});
