/**
 * A second family, to prove that one file and one line add it: image tokens attend to the text, then pass an MLP.
 * Loaded before the program (`bun --preload`), it registers itself as a line in core/models/families.ts would.
 */
import { FAMILIES } from "../../core/models/families.ts";
import type { NetConfig, NetParam } from "../../core/models/family.ts";
import { dense, denseAct } from "../../core/nn/linear.ts";
import { adaLayerNorm } from "../../core/ops/ada_layer_norm.ts";
import { attention } from "../../core/ops/attention.ts";
import { gateResidual } from "../../core/ops/gate_residual.ts";
import { patchify } from "../../core/ops/patchify.ts";
import { timestepEmbed } from "../../core/ops/timestep_embed.ts";
import { unpatchify } from "../../core/ops/unpatchify.ts";

const TEXT = { encoder: "bytes", width: 32, length: 24 };
const SMALL: NetConfig = { dim: 32, heads: 2, layers: 2, patch: [1, 4, 4], secondTime: false };
const VOLUME = 16;
const same = (name: string): string => name;

function params({ dim: D, layers }: NetConfig): NetParam[] {
  const linear = (name: string, n: number, k: number, block: number | null = null): NetParam[] => [
    { name: `${name}.weight`, shape: [n, k], init: { kind: "normal", std: Math.sqrt(1 / k) }, role: "matrix", block },
    { name: `${name}.bias`, shape: [n], init: { kind: "zeros" }, role: "bias", block },
  ];
  const blocks = Array.from({ length: layers }, (_, i) => [
    ...linear(`mix.${i}.q`, D, D, i),
    ...linear(`mix.${i}.k`, D, TEXT.width, i),
    ...linear(`mix.${i}.v`, D, TEXT.width, i),
    ...linear(`mix.${i}.up`, 2 * D, D, i),
    ...linear(`mix.${i}.down`, D, 2 * D, i),
  ]).flat();
  const head = linear("pixels", VOLUME, D).map((p): NetParam => ({ ...p, init: { kind: "zeros" } }));
  return [...linear("tokens", D, VOLUME), ...linear("time", 3 * D, 16), ...blocks, ...head];
}

FAMILIES.mixer = {
  name: "mixer",
  title: "Mixer",
  presets: { "mixer-digits": { config: SMALL, bench: null, latent: [1, 1, 28, 28], use: "train" } },
  video: null,
  resize: (c, { dim = c.dim, heads = c.heads, layers = c.layers }) => ({ ...c, dim, heads, layers }),
  latent: () => ({ channels: 1, inputChannels: 1, strides: [1, 1, 1], vae: null }),
  text: () => TEXT,
  ffnDim: (c) => 2 * c.dim,
  params,
  roleOf: (name) => (name.endsWith("weight") ? "matrix" : "bias"),
  blockOf: (name) => (name.startsWith("mix.") ? Number(name.split(".")[1]) : null),
  optional: () => false,
  net: (config, p, options) => ({
    config,
    options,
    netTime: (t) => t,
    forward(tape, x, [time], context) {
      const { dtype, residual } = options;
      const { dim, heads, layers, patch } = config;
      let h = dense(tape, p, "tokens", patchify(tape, x, { patch, order: "channel_first", dtype }), residual);
      const e = dense(tape, p, "time", timestepEmbed(tape, time, { width: 16, dtype: "f32" }));
      const modulation = tape.reshape(e, [x.x.shape[0], 3, dim]);
      for (let i = 0; i < layers; i++) {
        const n = adaLayerNorm(tape, h, modulation, { shift: 0, scale: 1, eps: 1e-6, dtype });
        const [k, v] = ["k", "v"].map((part) => dense(tape, p, `mix.${i}.${part}`, context));
        const q = dense(tape, p, `mix.${i}.q`, n);
        const read = gateResidual(tape, h, attention(tape, { q, k, v }, heads));
        const mlp = dense(tape, p, `mix.${i}.down`, denseAct(tape, p, `mix.${i}.up`, n, "gelu_tanh"));
        h = gateResidual(tape, read, mlp, { modulation, slot: 2 });
      }
      const pixels = dense(tape, p, "pixels", h, residual);
      return unpatchify(tape, pixels, { patch, order: "channel_last", dtype: x.x.dtype, shape: [...x.x.shape] });
    },
  }),
  layouts: [{ name: "original", prefix: "", probe: "mix.0.up.weight", toCanonical: same, fromCanonical: same }],
  configOf(shapes) {
    const layers = [...shapes.keys()].filter((name) => name.endsWith("down.weight")).length;
    return { ...SMALL, layers, dim: shapes.get("tokens.weight")?.shape[0] ?? 0 };
  },
  note: () => ({}),
  noted: () => null,
  diffusers: () => ({ _class_name: "Mixer" }),
  storedShape: (_name, shape) => shape,
};
