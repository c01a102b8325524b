import { observed, type Describers } from "../../ffi/counting.ts";
import { dtypeBytes, type DType } from "../dtype.ts";
import { VAES } from "../models/families.ts";
import type { VaeFamily, VaePassOptions } from "../models/vae.ts";
import { Device } from "../tensor.ts";
import { compared, fillNoise, rate, timeCalls, type BenchRow, type BenchSetting } from "./time.ts";

/** Autoencoders by their names in `--model`. */
export const benchVaes = (): Record<string, { family: VaeFamily; config: unknown }> =>
  Object.fromEntries(
    Object.values(VAES).flatMap((family) =>
      Object.entries(family.presets).map(([name, config]) => [name, { family, config }]),
    ),
  );

export interface VaeSize extends VaePassOptions {
  family: VaeFamily;
  config: unknown;
  frames: number;
  size: readonly [rows: number, columns: number];
  dtype: DType;
}
export type VaePass = "decode" | "encode";

interface Work {
  flop: number;
  bytes: number;
}
interface Line extends Work {
  name: string;
  shape: string;
  ms: number;
  calls: number;
}

interface Described extends Work {
  name: string;
  shape: string;
}

const moves = (name: string, shape: string, bytes: number): Described => ({ name, shape, flop: 0, bytes });

/** Each native call of the autoencoder: its row, FLOP and minimal memory traffic; elements have `bytes` bytes. */
const describers = (bytes: number): Describers<Described> => ({
  conv3d: ({ geometry, r }) => {
    const counts = Array.from(geometry as BigInt64Array, Number);
    const [T, Y, X, C, , To, Yo, Xo, O, kt, k, st, s, , , upsample, split] = counts;
    const taps = upsample ? 16 : kt * k * k;
    const stride = s > 1 || st > 1 ? ` stride ${st}x${s}` : "";
    const parts = `${upsample ? " upsampling" : ""}${split > 1 ? ` split ${split}` : ""}${r ? " + residual" : ""}`;
    const sums = To * Yo * Xo * (upsample ? 4 : 1);
    return {
      name: `conv ${kt}x${k}x${k}${stride}${parts} ${C} to ${O}`,
      shape: `${Yo}x${Xo}`,
      flop: 2 * To * Yo * Xo * taps * C * O,
      bytes: bytes * (T * Y * X * C + sums * O * (r ? 2 : 1)),
    };
  },
  linearFwd: ({ M, N, K }) => ({
    name: "linear",
    shape: `N ${N}, K ${K}`,
    flop: 2 * M * N * K,
    bytes: bytes * (M * (N + K) + N * K),
  }),
  channelNorm: ({ M, C, silu }) => moves(`norm${silu ? " + SiLU" : ""}`, `${C} channels`, 2 * bytes * M * C),
  softmaxRows: ({ M, N }) => moves("softmax", `${N} columns`, (bytes + 4) * M * N),
  channelsLast: ({ C, T, Y, X, Cy }) => moves("channels last", `${C} channels`, T * Y * X * (4 * C + bytes * Cy)),
  channelsFirst: ({ C, N, Cx }) => moves("channels first", `${C} channels`, N * (4 * C + bytes * Cx)),
  copy: (a) => moves("copy", "", 2 * a.bytes),
  axpy: ({ n }) => moves("add", "", 3 * bytes * n),
  conv3dPack: ({ O, I, Ip, kt, k }) => moves("pack weights", "", bytes * O * (I + Ip) * kt * k ** 2),
  blendTile: () => moves("blendTile", "", 0),
  zero: (a) => moves("zero", "", a.bytes),
});

function pass(device: Device, s: VaeSize, which: VaePass): () => void {
  const vae = s.family.create(device, s.config, s.dtype);
  vae.params.init(1);
  const [time, rows, columns] = vae.strides;
  const latent = [1, vae.channels, 1 + (s.frames - 1) / time, s.size[0] / rows, s.size[1] / columns];
  const input = which === "decode" ? latent : [1, 3, s.frames, ...s.size];
  const x = fillNoise(device.empty(input, s.dtype === "f64" ? "f64" : "f32"), 7, which === "decode" ? 1 : 0.4);
  return which === "decode" ? () => vae.decode(x, () => {}, s) : () => void vae.encode(x, s);
}

/**
 * Times decoding and encoding with random weights. With `layers` also one pass with a synchronization after each call:
 * a row for each kind of layer, summed over its calls.
 */
export function benchVae(
  { device: base, timing, ceiling }: BenchSetting,
  s: VaeSize,
  passes: readonly VaePass[],
  layers: boolean,
): BenchRow[] {
  const shape = `${s.frames}x${s.size.join("x")} ${s.dtype}`;
  return passes.flatMap((which) => {
    let flop = 0;
    const lines = new Map<string, Line>();
    let mode: "count" | "time" | "off" = "off";
    const backend = observed(base.backend, describers(dtypeBytes(s.dtype)), (describe, run) => {
      if (mode === "off") return run();
      const work = describe();
      flop += work.flop;
      if (mode === "count") return run();
      base.sync();
      const began = performance.now();
      run();
      base.sync();
      const key = `${work.name} ${work.shape}`;
      const line = lines.get(key) ?? { name: work.name, shape: work.shape, ms: 0, calls: 0, flop: 0, bytes: 0 };
      lines.set(key, {
        ...line,
        ms: line.ms + performance.now() - began,
        calls: line.calls + 1,
        flop: line.flop + work.flop,
        bytes: line.bytes + work.bytes,
      });
    });
    using device = new Device(backend);
    const run = pass(device, s, which);
    const once = (as: typeof mode): void => {
      mode = as;
      using _scope = device.scope();
      run();
      mode = "off";
    };
    once("count");
    const total = flop;
    base.resetPeak();
    const ms = timeCalls(device, run, timing);
    const bytesPeak = device.memory().peak;
    const whole = { ...compared({ name: which, shape, ms, ...rate({ flop: total }, ms) }, ceiling), bytesPeak };
    if (!layers) return [whole];
    once("time");
    const rows = [...lines.values()].sort((a, b) => b.ms - a.ms);
    return [
      whole,
      ...rows.map((l) =>
        compared(
          {
            name: `  ${l.name}`,
            shape: `${l.shape} (${l.calls} calls)`.trim(),
            ms: l.ms,
            ...rate(l.flop > 0 ? { flop: l.flop } : { bytes: l.bytes }, l.ms),
          },
          l.flop > 0 ? ceiling : null,
        ),
      ),
    ];
  });
}
