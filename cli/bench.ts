import { defineCommand, type ArgsDef } from "citty";
import { ALL_INPUTS, ATTENTION_SHAPES, benchAttention, type AttentionInputs } from "../core/bench/attention.ts";
import { benchCopy, copyCeiling } from "../core/bench/copy.ts";
import { benchGemm, type GemmShape, type Pass } from "../core/bench/gemm.ts";
import { jvpError, jvpErrorLarge } from "../core/bench/jvp_error.ts";
import { benchLoad } from "../core/bench/load.ts";
import { benchForward, benchJvp, benchModels, benchSample, gemmShapes } from "../core/bench/network.ts";
import { benchOps } from "../core/bench/ops.ts";
import { benchVae, benchVaes } from "../core/bench/vae.ts";
import { allPresets, DIGITS_NET } from "../core/models/families.ts";
import { flag, integers, oneOf, option, usage, withExamples } from "./args.ts";
import {
  againstMatmul,
  benchCommand,
  COMMON_ARGS,
  count,
  DETERMINISTIC_ARG,
  DTYPES,
  given,
  MODEL_ARGS,
  networkCommand,
  networkSize,
  sizes,
  type Values,
} from "./bench_args.ts";
import step from "./bench_step.ts";

const PASSES = ["fwd", "jvp", "vjp"] as const;
const PASS_ARG = {
  pass: option("fwd, jvp, vjp, comma-separated (default all)", "PASS"),
} as const satisfies ArgsDef;

function passesOf(a: Values): Pass[] {
  const listed = given(a, "pass");
  return listed === undefined ? [...PASSES] : listed.split(",").map((p) => oneOf(p, "pass", PASSES));
}

const PRESETS = Object.keys(allPresets());

function gemmShape(text: string): GemmShape {
  const [M, N, K] = sizes(text, "shape", 3);
  return { M, N, K };
}

const GEMM_SHAPES = "M x N x K of y[M,N] = x[M,K] w[N,K]^T, comma-separated";

const gemm = benchCommand(
  "gemm",
  withExamples("Time linear layers.", "rcm bench gemm --shape 8192x8192x8192 --pass fwd"),
  {
    shape: option(`${GEMM_SHAPES} (default: a square one and the model's)`, "MxNxK"),
    ...PASS_ARG,
    ...MODEL_ARGS,
    ...COMMON_ARGS,
  },
  (s, a) => {
    const side = s.device.backend.kind === "cuda" ? 8192 : 1024;
    const shapes = given(a, "shape")?.split(",").map(gemmShape);
    return benchGemm(againstMatmul(s), {
      shapes: shapes ?? [{ M: side, N: side, K: side }, ...gemmShapes(networkSize(a, s))],
      passes: passesOf(a),
      dtype: s.dtype,
    });
  },
);

const COPY_MIB = { cuda: [1, 16, 64, 256, 1024, 4096], cpu: [1, 16, 256] };

const copy = benchCommand(
  "copy",
  "Time copies within the device: the bandwidth that elementwise work is compared with.",
  { mib: option("sizes in MiB, comma-separated", "N"), ...COMMON_ARGS },
  (s, a) => {
    const listed = given(a, "mib");
    const mib = listed === undefined ? COPY_MIB[s.device.backend.kind] : integers(listed, "mib");
    return benchCopy(
      s,
      mib.map((n) => n * 2 ** 20),
    );
  },
);

const load = benchCommand(
  "load",
  withExamples(
    "Time the loading of a checkpoint into its network; peak is host memory of this process.",
    "rcm bench load --preset wan2.1-1.3b --format pth",
  ),
  {
    path: {
      type: "positional",
      required: false,
      description: "checkpoint in any format (default: one of full size is written for the run)",
    },
    preset: option(`network of the file that is written: ${PRESETS.join(", ")}`, "NAME", PRESETS[0]),
    stored: option("dtype of the file that is written", "DTYPE", "bf16"),
    format: option("its format: pth or safetensors", "FORMAT", "pth"),
    ...COMMON_ARGS,
    repeats: option("loads; the first may come from the disk (default 5)", "N"),
  },
  (s, a) =>
    benchLoad(s.device, {
      path: given(a, "path") ?? null,
      preset: oneOf(String(a.preset), "preset", PRESETS),
      stored: oneOf(String(a.stored), "stored", DTYPES),
      format: oneOf(String(a.format), "format", ["pth", "safetensors"]),
      dtype: s.dtype,
      repeats: count(a, "repeats", 5),
    }),
);

function tangentsOf(value: string | undefined): AttentionInputs | null {
  if (value === undefined) return null;
  const named = value === "none" ? [] : value.split(",").map((n) => oneOf(n, "tangents", ["q", "k", "v"]));
  return { q: named.includes("q"), k: named.includes("k"), v: named.includes("v") };
}

const attention = benchCommand(
  "attention",
  withExamples("Time attention.", "rcm bench attention --heads 12 --lq 32760 --dim 128 --pass jvp"),
  {
    heads: option("heads (with --lq: one shape; without: the table of the design)", "N"),
    lq: option("queries", "N"),
    lk: option("keys (default: as queries)", "N"),
    dim: option("head width", "N"),
    batch: option("samples", "N", "1"),
    tangents: option("inputs with a tangent: q,k,v or a part of them, or none", "LIST"),
    ...PASS_ARG,
    ...DETERMINISTIC_ARG,
    ...COMMON_ARGS,
  },
  (s, a) => {
    const lq = count(a, "lq", 0);
    const named = tangentsOf(given(a, "tangents"));
    const one = {
      batch: count(a, "batch", 1),
      heads: count(a, "heads", 12),
      lq,
      lk: count(a, "lk", lq),
      dim: count(a, "dim", 128),
    };
    const shapes = lq > 0 ? [{ shape: one, tangents: ALL_INPUTS }] : ATTENTION_SHAPES[s.device.backend.kind];
    const setting = againstMatmul(s);
    return shapes.flatMap(({ shape, tangents }) =>
      passesOf(a).map((pass) =>
        benchAttention(setting, { shape, pass, tangents: named ?? tangents, dtype: s.dtype }),
      ),
    );
  },
);

const ops = networkCommand(
  "ops",
  "Time every fused elementwise op at a model's size, compared with the measured copy bandwidth.",
  {},
  (s, size) => benchOps({ ...s, ceiling: s.ceiling ?? copyCeiling(s.device, s.timing) }, size),
);

const forward = networkCommand(
  "forward",
  withExamples("Time the teacher's forward pass.", "rcm bench forward --model wan-1.3b --residual bf16"),
  {},
  (s, size) => benchForward(againstMatmul(s), size),
);

const jvp = networkCommand(
  "jvp",
  withExamples("Time value and tangent in one pass.", "rcm bench jvp --model wan-1.3b --backward"),
  { backward: flag("also backward with recompute"), ...DETERMINISTIC_ARG },
  (s, size, a) => benchJvp(againstMatmul(s), size, Boolean(a.backward)),
);

const sample = networkCommand(
  "sample",
  "Time few-step sampling of latents.",
  { steps: option("numbers of steps, comma-separated", "LIST", "1,2,4") },
  (s, size, a) => benchSample(againstMatmul(s), size, integers(String(a.steps), "steps")),
);

const VAES = Object.keys(benchVaes());

const vae = benchCommand(
  "vae",
  withExamples("Time the video autoencoder over random weights.", "rcm bench vae --layers"),
  {
    model: option(`${VAES.join(", ")} (default: wan2.1-vae on a GPU, wan-vae-small on a CPU)`, "MODEL"),
    frames: option("frames, 1 + 4n (default 81 on a GPU, 5 on a CPU)", "N"),
    size: option("rows x columns (default 480x832 on a GPU, 32x48 on a CPU)", "YxX"),
    pass: option("decode, encode, comma-separated", "PASS", "decode,encode"),
    layers: flag("also a row for each kind of layer"),
    chunk: option("latent frames of a piece (default: by memory)", "N"),
    tile: option("side of a tile x overlap, in latent cells, as 32x8 (default: no tiles)", "NxM"),
    ...COMMON_ARGS,
  },
  (s, a) => {
    const gpu = s.device.backend.kind === "cuda";
    const model = benchVaes()[oneOf(given(a, "model") ?? (gpu ? VAES[0] : VAES[1]), "model", VAES)];
    const [rows, columns] = sizes(given(a, "size") ?? (gpu ? "480x832" : "32x48"), "size", 2);
    const frames = count(a, "frames", gpu ? 81 : 5);
    if (frames % 4 !== 1 || rows % 8 !== 0 || columns % 8 !== 0)
      throw usage(`found ${frames}x${rows}x${columns}, wanted 1 + 4n frames and multiples of 8`);
    const tile = given(a, "tile") === undefined ? null : sizes(String(a.tile), "tile", 2);
    const passes = String(a.pass).split(",").map((p) => oneOf(p, "pass", ["decode", "encode"] as const));
    const size = {
      ...model,
      frames,
      size: [rows, columns] as const,
      dtype: s.dtype,
      chunk: given(a, "chunk") === undefined ? null : count(a, "chunk", 1),
      tile: tile && { size: tile[0], overlap: tile[1] },
    };
    return benchVae(againstMatmul(s), size, passes, Boolean(a.layers));
  },
);

const error = benchCommand(
  "jvp-error",
  withExamples(
    "Errors of value and tangent, block by block, of a small network of a model's kind against f64 on the CPU.",
    "rcm bench jvp-error --dtype bf16 --residual f32",
  ),
  {
    ...MODEL_ARGS,
    dim: option("width of the small network", "N", "256"),
    precise: flag("f32-grade arithmetic over the same weights"),
    full: flag("the whole network, against its f32-grade pass on the same device"),
    ...COMMON_ARGS,
  },
  (s, a) => {
    if (a.full) {
      const whole = networkSize(a, s);
      return jvpErrorLarge(s.device, whole.spec, whole);
    }
    const model = given(a, "model") ?? Object.keys(benchModels())[0];
    const latent = given(a, "latent") ?? (a.model === DIGITS_NET ? "1x1x28x28" : "16x3x16x24");
    const size = networkSize({ ...a, model, latent }, s);
    return jvpError(s.device, {
      spec: size.spec,
      layers: count(a, "layers", 6),
      dim: count(a, "dim", 256),
      latent: size.latent,
      dtype: s.dtype,
      residual: size.residual,
      precise: Boolean(a.precise),
    });
  },
);

export default defineCommand({
  meta: { name: "bench", description: "Measure speed and accuracy" },
  subCommands: { gemm, copy, load, attention, ops, forward, jvp, step, sample, vae, "jvp-error": error },
});
