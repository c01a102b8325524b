import { RcmError } from "../error.ts";

/** One job of an array: it processes the items whose number is `index` modulo `count`. */
export interface Shard {
  index: number;
  count: number;
}

/** "2/8" is the third of eight shards. Throws: E_ARG. */
export function parseShard(text: string): Shard {
  const found = /^(\d+)\/(\d+)$/.exec(text);
  const [index, count] = found ? [Number(found[1]), Number(found[2])] : [0, 0];
  if (count < 1 || index >= count)
    throw new RcmError("E_ARG", "--shard is I/N with I from 0 to N - 1", { op: "usage", got: text });
  return { index, count };
}
