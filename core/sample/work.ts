import type { Shard } from "../io/shard.ts";

/** One sample to draw. Its noise depends on the seed and `index` alone. */
export interface WorkItem {
  index: number;
  prompt: string;
  /** Index of the prompt in the list. */
  promptIndex: number;
  /** Name of its files without extension. */
  name: string;
}

/** `each` samples per prompt, grouped by prompt, so that appending prompts does not renumber earlier samples. */
export function workItems(prompts: readonly string[], each: number): WorkItem[] {
  return prompts.flatMap((prompt, p) =>
    Array.from({ length: each }, (_, k) => {
      const index = p * each + k;
      return { index, prompt, promptIndex: p, name: String(index).padStart(6, "0") };
    })
  );
}

/** Every count-th item, starting at the shard's index. */
export const ofShard = (items: readonly WorkItem[], { index, count }: Shard): WorkItem[] =>
  items.filter((item) => item.index % count === index);
