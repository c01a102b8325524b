/**
 * A second family, to prove that one is added by a folder and a line: tokens that read the text and are mixed by an MLP. Loaded
 * before the program (`bun --preload`), it joins FAMILIES as a line in core/models/families.ts would.
 */
import { FAMILIES } from "../../core/models/families.ts";
import type { Family, Net, NetConfig, NetParam } from "../../core/models/family.ts";
import { dense, denseAct } from "../../core/nn/linear.ts";
import { adaLayerNorm } from "../../core/ops/ada_layer_norm.ts";
import { addModulation } from "../../core/ops/add_modulation.ts";
import { attention } from "../../core/ops/attention.ts";
import { gateResidual } from "../../core/ops/gate_residual.ts";
import { patchify } from "../../core/ops/patchify.ts";
import { timestepEmbed } from "../../core/ops/timestep_embed.ts";
import { unpatchify } from "../../core/ops/unpatchify.ts";
import { RcmError } from "../../core/error.ts";

const TEXT = { encoder: "bytes", width: 32, length: 24 };
const SMALL: NetConfig = { dim: 32, heads: 2, layers: 2, patch: [1, 4, 4], secondTime: false };
const VOLUME = 16;

function params({ dim: D, layers }: NetConfig): NetParam[] {
  const out: NetParam[] = [];
  const layer = (name: string, n: number, k: number, block: number | null, zero = false): void => {
    const init = zero ? ({ kind: "zeros" } as const) : ({ kind: "normal", std: Math.sqrt(1 / k) } as const);
    out.push({ name: `${name}.weight`, shape: [n, k], init, role: "matrix", block });
    out.push({ name: `${name}.bias`, shape: [n], init: { kind: "zeros" }, role: "bias", block });
  };
  layer("tokens", D, VOLUME, null);
  layer("time", 3 * D, 16, null);
  for (let i = 0; i < layers; i++) {
    for (const [part, n, k] of [["q", D, D], ["k", D, TEXT.width], ["v", D, TEXT.width], ["up", 2 * D, D], ["down", D, 2 * D]] as const) {
      layer(`mix.${i}.${part}`, n, k, i);
    }
    out.push({ name: `mix.${i}.modulation`, shape: [1, 3, D], init: { kind: "normal", std: 0.1 }, role: "modulation", block: i });
  }
  layer("pixels", VOLUME, D, null, true);
  return out;
}

const mixer: Family = {
  name: "mixer",
  title: "Mixer",
  presets: { "mixer-digits": { config: SMALL, bench: null, latent: [1, 1, 28, 28], use: "train" } },
  video: null,
  resize: (c, { dim = c.dim, heads = c.heads, layers = c.layers }) => ({ ...c, dim, heads, layers }),
  latent: () => ({ channels: 1, inputChannels: 1, strides: [1, 1, 1], vae: null }),
  text: () => TEXT,
  ffnDim: (c) => 2 * c.dim,
  params,
  roleOf: (name) => (name.endsWith("modulation") ? "modulation" : name.endsWith("weight") ? "matrix" : "bias"),
  blockOf: (name) => (name.startsWith("mix.") ? Number(name.split(".")[1]) : null),
  optional: () => false,
  net: (config, p, options): Net => ({
    config,
    options,
    netTime: (t) => t,
    forward(tape, x, [time], context) {
      const { dtype, residual } = options;
      const patches = patchify(tape, x, { patch: config.patch, order: "channel_first", dtype });
      let h = dense(tape, p, "tokens", patches, residual);
      const e = tape.reshape(dense(tape, p, "time", timestepEmbed(tape, time, { width: 16, dtype: "f32" })), [x.x.shape[0], 3, config.dim]);
      for (let i = 0; i < config.layers; i++) {
        const modulation = addModulation(tape, p.get(`mix.${i}.modulation`), e);
        const n = adaLayerNorm(tape, h, modulation, { shift: 0, scale: 1, eps: 1e-6, dtype });
        const [k, v] = ["k", "v"].map((part) => dense(tape, p, `mix.${i}.${part}`, context));
        const read = gateResidual(tape, h, attention(tape, { q: dense(tape, p, `mix.${i}.q`, n), k, v }, config.heads));
        h = gateResidual(tape, read, dense(tape, p, `mix.${i}.down`, denseAct(tape, p, `mix.${i}.up`, n, "gelu_tanh")), { modulation, slot: 2 });
      }
      return unpatchify(tape, dense(tape, p, "pixels", h, residual), { patch: config.patch, order: "channel_last", dtype: x.x.dtype, shape: [...x.x.shape] });
    },
  }),
  layouts: [{ name: "original", prefix: "", probe: "mix.0.up.weight", toOwn: (key) => key, fromOwn: (name) => name }],
  configOf: (shapes) => ({ ...SMALL, dim: shapes.get("tokens.weight")?.shape[0] ?? 0, layers: [...shapes.keys()].filter((n) => n.endsWith("modulation")).length }),
  note: () => ({}),
  noted: () => null,
  diffusers: () => {
    throw new RcmError("E_ARG", "diffusers does not know mixers", { op: "export" });
  },
  storedShape: (_name, shape) => shape,
};

FAMILIES.mixer = mixer;
