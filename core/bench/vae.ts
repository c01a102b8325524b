import type { Rcm } from "../../ffi/rcm.gen.ts";
import type { DType } from "../dtype.ts";
import { WAN_VAE, spaceFactor, timeFactor, type WanVaeConfig } from "../models/wan_vae/config.ts";
import { WanVae, type VaePassOptions } from "../models/wan_vae/model.ts";
import { Device } from "../tensor.ts";
import { beside, noise, rate, timeCalls, type BenchRow, type TimeOptions } from "./time.ts";

/** Sizes by the names that `--model` takes. */
export const VAES = {
  "wan2.1-vae": WAN_VAE,
  "wan-vae-small": { ...WAN_VAE, dim: 8, resBlocks: 1 },
} as const satisfies Record<string, WanVaeConfig>;
export type VaeName = keyof typeof VAES;

export interface VaeSize extends VaePassOptions {
  config: WanVaeConfig;
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

type Call = (...a: never[]) => void;

/** What a call of the library does: a line of the table, and its FLOP and least bytes of traffic (elements of `bytes` bytes). */
function describe(name: string, a: readonly unknown[], bytes: number): { name: string; shape: string } & Work {
  const n = (i: number): number => Number(a[i]);
  if (name === "conv3d") {
    const [T, Y, X, C, , To, Yo, Xo, O, kt, k, st, s, , , upsample, split] = Array.from(a[6] as BigInt64Array, Number);
    const taps = upsample ? 16 : kt * k * k;
    const kind = `${kt}x${k}x${k}${s > 1 || st > 1 ? ` stride ${st}x${s}` : ""}${upsample ? " upsampling" : ""}${split > 1 ? ` split ${split}` : ""}${n(4) ? " + residual" : ""}`;
    const sums = To * Yo * Xo * (upsample ? 4 : 1);
    return { name: `conv ${kind} ${C} to ${O}`, shape: `${Yo}x${Xo}`, flop: 2 * To * Yo * Xo * taps * C * O, bytes: bytes * (T * Y * X * C + sums * O * (n(4) ? 2 : 1)) };
  }
  if (name === "linearFwd") return { name: "linear", shape: `N ${n(5)}, K ${n(6)}`, flop: 2 * n(4) * n(5) * n(6), bytes: bytes * (n(4) * (n(5) + n(6)) + n(5) * n(6)) };
  if (name === "channelNorm") return { name: `norm${n(5) ? " + SiLU" : ""}`, shape: `${n(4)} channels`, flop: 0, bytes: 2 * bytes * n(3) * n(4) };
  if (name === "softmaxRows") return { name: "softmax", shape: `${n(3)} columns`, flop: 0, bytes: (bytes + 4) * n(2) * n(3) };
  if (name === "channelsLast") return { name: "channels last", shape: `${n(4)} channels`, flop: 0, bytes: n(5) * n(6) * n(7) * (4 * n(4) + bytes * n(11)) };
  if (name === "channelsFirst") return { name: "channels first", shape: `${n(4)} channels`, flop: 0, bytes: n(5) * (4 * n(4) + bytes * n(6)) };
  if (name === "copy") return { name: "copy", shape: "", flop: 0, bytes: 2 * n(2) };
  if (name === "axpy") return { name: "add", shape: "", flop: 0, bytes: 3 * bytes * n(2) };
  if (name === "zero") return { name: "zero", shape: "", flop: 0, bytes: n(1) };
  if (name === "conv3dPack") return { name: "pack weights", shape: "", flop: 0, bytes: bytes * n(2) * (n(3) + n(4)) * n(5) * n(6) ** 2 };
  return { name, shape: "", flop: 0, bytes: 0 };
}

const WATCHED = ["conv3d", "linearFwd", "channelNorm", "softmaxRows", "channelsLast", "channelsFirst", "copy", "axpy", "conv3dPack", "blendTile", "zero"] as const;

/** The same device with every call of the autoencoder seen by `on`, which runs it. */
function watched(device: Device, on: (name: string, a: readonly unknown[], run: () => void) => void): Device {
  const lib = { ...device.lib } as Rcm;
  for (const name of WATCHED) {
    const call = device.lib[name] as Call;
    (lib as unknown as Record<string, Call>)[name] = (...a: never[]) => on(name, a, () => call(...a));
  }
  return new Device({ ...device.backend, lib });
}

function pass(device: Device, s: VaeSize, which: VaePass): () => void {
  const vae = WanVae.create(device, s.config, { dtype: s.dtype });
  vae.params.init(1);
  const [space, time] = [spaceFactor(s.config), timeFactor(s.config)];
  const input = which === "decode" ? [1, s.config.zDim, 1 + (s.frames - 1) / time, s.size[0] / space, s.size[1] / space] : [1, 3, s.frames, ...s.size];
  const x = noise(device, input, s.dtype === "f64" ? "f64" : "f32", 7, which === "decode" ? 1 : 0.4);
  return which === "decode" ? () => vae.decode(x, () => {}, s) : () => void vae.encode(x, s);
}

/**
 * Times both ways of the autoencoder over random weights. With `layers`, then also one pass with a wait after each call: a row for each
 * kind of layer, summed over its calls.
 */
export function benchVae(base: Device, s: VaeSize, passes: readonly VaePass[], layers: boolean, ceiling: number | null, o: TimeOptions): BenchRow[] {
  const shape = `${s.frames}x${s.size.join("x")} ${s.dtype}`;
  return passes.flatMap((which) => {
    let flop = 0;
    const lines = new Map<string, Line>();
    let mode: "count" | "time" | "off" = "off";
    using device = watched(base, (name, a, run) => {
      if (mode === "off") return run();
      const work = describe(name, a, s.dtype === "f32" ? 4 : s.dtype === "f64" ? 8 : 2);
      flop += work.flop;
      if (mode === "count") return run();
      base.lib.sync();
      const began = performance.now();
      run();
      base.lib.sync();
      const key = `${work.name} ${work.shape}`;
      const line = lines.get(key) ?? { name: work.name, shape: work.shape, ms: 0, calls: 0, flop: 0, bytes: 0 };
      lines.set(key, { ...line, ms: line.ms + performance.now() - began, calls: line.calls + 1, flop: line.flop + work.flop, bytes: line.bytes + work.bytes });
    });
    const run = pass(device, s, which);
    const once = (as: typeof mode): void => {
      mode = as;
      using _scope = device.scope();
      run();
      mode = "off";
    };
    once("count");
    const total = flop;
    base.lib.memoryResetPeak();
    const ms = timeCalls(device, run, o);
    const bytesPeak = device.memory().peak;
    const whole = { ...beside({ name: which, shape, ms, ...rate({ flop: total }, ms) }, ceiling), bytesPeak };
    if (!layers) return [whole];
    once("time");
    const rows = [...lines.values()].sort((a, b) => b.ms - a.ms);
    return [whole, ...rows.map((l) => beside({ name: `  ${l.name}`, shape: `${l.shape} (${l.calls} calls)`.trim(), ms: l.ms, ...rate(l.flop > 0 ? { flop: l.flop } : { bytes: l.bytes }, l.ms) }, l.flop > 0 ? ceiling : null))];
  });
}
