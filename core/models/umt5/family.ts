import type { EncoderFamily } from "../text_encoder.ts";
import { umt5ConfigOf, type Umt5Config } from "./config.ts";
import { detectUmt5Layout, umt5Keys, umt5Params } from "./keys.ts";
import { Umt5Encoder } from "./model.ts";

/** The text encoder of Wan2.1. */
export const umt5: EncoderFamily<Umt5Config> = {
  title: "umT5",
  params: umt5Params,
  keysIn(keys) {
    const all = [...keys];
    const source = detectUmt5Layout(all);
    return source && { layout: source.layout, ...umt5Keys(source, all) };
  },
  configOf: (shapes, path) => umt5ConfigOf(new Map([...shapes].map(([name, { shape }]) => [name, shape])), path),
  describe: ({ dim, layers, heads, vocab }) => `width ${dim}, ${layers} layers, ${heads} heads, vocabulary of ${vocab}`,
  create: (device, config, o) => Umt5Encoder.create(device, config, o),
  negativeFile: "umT5_wan_negative_emb.pt",
};
