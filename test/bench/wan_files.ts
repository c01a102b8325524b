import { existsSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ShardAppender } from "../../core/data/appender.ts";
import { padEmbedding } from "../../core/data/prompts.ts";
import type { DType } from "../../core/dtype.ts";
import { writeFileAtomic } from "../../core/io/atomic.ts";
import { AtomicFile } from "../../core/io/out_file.ts";
import type { TensorStream } from "../../core/io/tensor_stream.ts";
import { streamTorch, writeTorch } from "../../core/io/torch.ts";
import { fileKey, shardPath } from "../../core/io/webdataset.ts";
import { WAN_PRESETS } from "../../core/models/wan/config.ts";
import { wanParams } from "../../core/models/wan/keys.ts";
import { Device, type Tensor } from "../../core/tensor.ts";

/**
 * Files of true size for measuring, without running a network: a random teacher as `teacher.pth`, shards of random latents and text
 * embeddings as `data/`, a negative embedding as `negative.pt`. What is there already is kept; host memory stays small.
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
  device.lib.fill(t.ptr, t.numel, mean, t.code);
  return t.axpy(device.randn(shape, of, 1, stream), std);
};

const teacher = join(a.out, "teacher.pth");
if (!existsSync(teacher)) {
  const began = performance.now();
  const tensors = wanParams(config).map(({ name, shape, init }, i): TensorStream => {
    const stored = name === "patch_embedding.weight" ? [config.dim, config.inDim, ...config.patch] : shape;
    const bytes = shape.reduce((n, d) => n * d, 1) * (dtype === "f32" ? 4 : 2);
    return {
      name, dtype, shape: stored, bytes,
      *chunks() {
        using _scope = device.scope();
        yield* draw(shape, dtype, i, 0.02, init.kind === "ones" ? 1 : 0).hostChunks();
      },
    };
  });
  using file = new AtomicFile(teacher);
  streamTorch(file, tensors);
  file.commit();
  const { size } = statSync(teacher);
  console.log(`${teacher}: ${(size / 1e9).toFixed(2)} GB in ${((performance.now() - began) / 1000).toFixed(1)} s`);
}

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
    shard.append({ key: fileKey(String(i)), latent, embed: padEmbedding(text(20_000 + i, 20 + (i % 100)), textLen, textDim, "random text"), prompt: `random sample ${i}` });
  }
  shard.finish();
  console.log(`${path}: ${a.samples} samples`);
}
