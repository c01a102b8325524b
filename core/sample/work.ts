import type { Shard } from "../io/shard.ts";

/** One sample to draw. Its noise depends on the seed and `index` alone. */
export interface WorkItem {
  index: number;
  prompt: string;
  /** Place of the prompt in the list. */
  promptIndex: number;
  /** Stem of its files. */
  name: string;
}

/** Every prompt `each` times, a prompt's samples together, so that prompts added at the end leave the others' numbers alone. */
export function workItems(prompts: readonly string[], each: number): WorkItem[] {
  return prompts.flatMap((prompt, p) =>
    Array.from({ length: each }, (_, k) => {
      const index = p * each + k;
      return { index, prompt, promptIndex: p, name: String(index).padStart(6, "0") };
    })
  );
}

/** Every count-th item from the shard's own on: shards differ by at most one item, and their union is the whole. */
export const ofShard = (items: readonly WorkItem[], { index, count }: Shard): WorkItem[] =>
  items.filter((item) => item.index % count === index);
