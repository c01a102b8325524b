import { existsSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ShardAppender } from "../../core/data/appender.ts";
import { padded } from "../../core/text/embedder.ts";
import { dtypeBytes, numel, type DType } from "../../core/dtype.ts";
import { writeFileAtomic } from "../../core/io/atomic.ts";
import { AtomicFile } from "../../core/io/out_file.ts";
import type { TensorStream } from "../../core/io/tensor_stream.ts";
import { streamTorch, writeTorch } from "../../core/io/torch.ts";
import { fileKey, shardPath } from "../../core/io/webdataset.ts";
import { WAN_PRESETS } from "../../core/models/wan/config.ts";
import { wanParams } from "../../core/models/wan/params.ts";
import { WAN_VAE } from "../../core/models/wan_vae/config.ts";
import { wanVaeParams } from "../../core/models/wan_vae/keys.ts";
import type { ParamSpec } from "../../core/nn/params.ts";
import { Device, type Tensor } from "../../core/tensor.ts";

/**
 * Files of true size for measuring, without running a network: a random teacher as `teacher.pth`, a random VAE as
 * `vae.pth`, shards of random latents and text embeddings as `data/`, a negative embedding as `negative.pt`. What is
 * there already is kept; host memory stays small.
 *
 *   sh cli/bun.sh test/bench/wan_files.ts --out bench/wan --size 1.3b --dtype f32 --samples 64
 */
const { values: a } = parseArgs({
  options: {
    out: { type: "string", default: "out/wan" },
    size: { type: "string", default: "1.3b" },
    dtype: { type: "string", default: "f32" },
    samples: { type: "string", default: "64" },
  },
});
const config = WAN_PRESETS[`wan2.1-${a.size}` as "wan2.1-1.3b"];
const dtype = a.dtype as DType;
if (!config || !["f32", "bf16"].includes(dtype)) throw new Error("--size 1.3b or 14b, --dtype f32 or bf16");
mkdirSync(a.out, { recursive: true });
using device = Device.open({ device: "cpu" });

/** Normal values of deviation `std` around `mean`. */
const draw = (shape: readonly number[], of: DType, stream: number, std: number, mean = 0): Tensor => {
  const t = device.empty(shape, of);
  t.fill(mean);
  return t.axpy(device.randn(shape, of, 1, stream), std);
};

/**
 * A torch file of random parameters, a piece of one at a time; `stored` gives a tensor's shape in the file where it is
 * another.
 */
function writeRandom(
  path: string,
  specs: readonly ParamSpec[],
  of: DType,
  first: number,
  stored: (spec: ParamSpec) => readonly number[] = (s) => s.shape,
): void {
  if (existsSync(path)) return;
  const began = performance.now();
  const tensors = specs.map((spec, i): TensorStream => ({
    name: spec.name,
    dtype: of,
    shape: stored(spec),
    bytes: numel(spec.shape) * dtypeBytes(of),
    *chunks() {
      using _scope = device.scope();
      yield* draw(spec.shape, of, first + i, 0.02, spec.init.kind === "ones" ? 1 : 0).hostChunks();
    },
  }));
  using file = new AtomicFile(path);
  streamTorch(file, tensors);
  file.commit();
  const { size } = statSync(path);
  console.log(`${path}: ${(size / 1e9).toFixed(2)} GB in ${((performance.now() - began) / 1000).toFixed(1)} s`);
}

writeRandom(join(a.out, "teacher.pth"), wanParams(config), dtype, 0, ({ name, shape }) =>
  name === "patch_embedding.weight" ? [config.dim, config.inDim, ...config.patch] : shape,
);
writeRandom(join(a.out, "vae.pth"), wanVaeParams(WAN_VAE), "f32", 100_000);

const { textLen, textDim } = config;
const text = (stream: number, rows: number) => {
  using _scope = device.scope();
  return draw([rows, textDim], "bf16", stream, 0.2).toHost();
};
writeFileAtomic(join(a.out, "negative.pt"), writeTorch(text(7000, 126)));

const path = shardPath(join(a.out, "data"), 0);
if (!existsSync(path)) {
  using shard = new ShardAppender(path);
  for (let i = shard.keys.length; i < Number(a.samples); i++) {
    using _scope = device.scope();
    const latent = draw([16, 21, 60, 104], "bf16", 10_000 + i, 1).toHost();
    shard.append({
      key: fileKey(String(i)),
      latent,
      embed: padded(text(20_000 + i, 20 + (i % 100)), textLen, "bf16"),
      prompt: `random sample ${i}`,
    });
  }
  shard.finish();
  console.log(`${path}: ${a.samples} samples`);
}
