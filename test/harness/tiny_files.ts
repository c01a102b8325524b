import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { hostTensor, type DType } from "../../core/dtype.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import { writeTorch } from "../../core/io/torch.ts";
import type { WanConfig } from "../../core/models/wan/config.ts";
import { UMT5_PRESETS } from "../../core/models/umt5/config.ts";
import { Umt5Encoder } from "../../core/models/umt5/model.ts";
import { WAN_VAE } from "../../core/models/wan_vae/config.ts";
import { WanVae } from "../../core/models/wan_vae/model.ts";
import { cpu } from "./device.ts";
import { randomize, TINY_WAN, tinyWan } from "./tiny_wan.ts";

/** As small as a file can be from which the size is inferred: a head is 128 wide. Its text is that of the tiny umT5. */
export const FILE_WAN: WanConfig = {
  ...TINY_WAN, dim: 128, heads: 1, layers: 2, ffnDim: 64, textDim: UMT5_PRESETS["umt5-tiny"].dim, textLen: 512,
};

/** A random network: `name.safetensors`, or `name.pth` with the public rCM prefix. */
export function writeWan(path: string, config: WanConfig, seed = 1, dtype: DType = "bf16"): void {
  const model = tinyWan(cpu(), config, dtype, seed);
  if (path.endsWith(".pth"))
    writeFileSync(path, writeTorch([...model.params.entries()].map(([name, t]) => [`net.${name}`, t])));
  else writeSafetensors(path, new Map(model.params.entries()));
  model.params.flat.free();
}

/** A random tiny umT5 encoder, `dim` wide, and a tokenizer of single letters for it. */
export function writeText(
  dir: string,
  dim: number = UMT5_PRESETS["umt5-tiny"].dim,
): { weights: string; tokenizer: string } {
  const [weights, tokenizer] = [join(dir, "umt5.safetensors"), join(dir, "tokenizer.json")];
  const encoder = Umt5Encoder.create(cpu(), { ...UMT5_PRESETS["umt5-tiny"], dim }, { dtype: "bf16" });
  randomize(encoder.params);
  writeSafetensors(weights, new Map(encoder.params.entries()));
  encoder[Symbol.dispose]();
  const vocab = [
    ["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["▁", -2],
    ...[..."abcdefghijklmnopqrstuvwxyz"].map((letter) => [letter, -3]),
  ];
  const words = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true };
  writeFileSync(
    tokenizer,
    JSON.stringify({
      version: "1.0", added_tokens: [], normalizer: null, pre_tokenizer: words, post_processor: null, decoder: words,
      model: { type: "Unigram", unk_id: 2, vocab, byte_fallback: false },
    }),
  );
  return { weights, tokenizer };
}

/** A random VAE of the published structure with few channels. */
export function writeVae(path: string): void {
  const vae = WanVae.create(cpu(), { ...WAN_VAE, dim: 8 }, { dtype: "f32" });
  vae.params.init(3);
  const entries = [...vae.params.entries()];
  if (path.endsWith(".pth")) writeFileSync(path, writeTorch(entries));
  else writeSafetensors(path, new Map(entries));
  vae.params.flat.free();
}

/** Text embeddings as torch saves them: n texts of `rows` tokens. */
export function writeEmbeds(path: string, n: number, rows: number, width: number): void {
  writeFileSync(
    path,
    writeTorch(
      hostTensor(
        "f32",
        [n, rows, width],
        Float64Array.from({ length: n * rows * width }, (_, i) => Math.sin(i * (1 + n))),
      ),
    ),
  );
}
