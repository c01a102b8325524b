import { join } from "node:path";
import type { HostTensor } from "../../core/dtype.ts";
import { UMT5_PRESETS } from "../../core/models/umt5/config.ts";
import { Umt5Encoder } from "../../core/models/umt5/model.ts";
import { cpu } from "./device.ts";

export const TINY_TOKENIZER = join(import.meta.dir, "../golden/text/tiny.model");
/** The tiny encoder with the vocabulary of the test tokenizer. */
export const TINY_UMT5 = { ...UMT5_PRESETS["umt5-tiny"], vocab: 576 };

/** Weights of a small encoder for the test tokenizer, in bf16, by Wan's names. */
export function tinyUmt5(seed = 3): Map<string, HostTensor> {
  using _scope = cpu().scope();
  using encoder = Umt5Encoder.create(cpu(), TINY_UMT5, { dtype: "bf16" });
  encoder.params.init(seed);
  return new Map(encoder.params.entries());
}
