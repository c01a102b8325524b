/** The names that one kind of public file gives to a family's parameters. */
export interface Layout {
  name: string;
  /** A key that every network of this layout has. */
  probe: string;
  /** Prefix of every key in a file of this layout. */
  prefix: string;
  /** The canonical name of a key without prefix, and back. */
  toCanonical(key: string): string;
  fromCanonical(name: string): string;
}

export interface FoundLayout {
  layout: Layout;
  /** Prefix of every key of the network; may be empty. */
  prefix: string;
}

export const WEIGHT_KINDS = ["ema", "student"] as const;
/** Which weights of a training run to load: the student's EMA or its trained weights. */
export type WeightKind = (typeof WEIGHT_KINDS)[number];

/** The prefix of diffusion networks in ComfyUI files, for every family. */
export const COMFYUI_PREFIX = "model.diffusion_model.";

/** Inserted in names by wrappers (torch.compile, activation checkpointing, FSDP), without meaning. */
const WRAPPERS = /(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\./g;
const withoutWrappers = (key: string): string => key.replace(WRAPPERS, "");

/** Prefixes in order of preference, for files with several networks. */
const PREFERRED: Record<WeightKind, string[]> = {
  ema: ["student.ema/", "net_ema.", "model_ema.", "ema.", "", "net.", COMFYUI_PREFIX],
  student: ["student.master/", "student.weights/", "net.", "model.", "", COMFYUI_PREFIX],
};

/** Every network among a set of keys that matches a layout, one entry for each prefix. */
export function networksIn(layouts: readonly Layout[], keys: Iterable<string>): FoundLayout[] {
  const found: FoundLayout[] = [];
  for (const raw of keys) {
    const key = withoutWrappers(raw);
    for (const probe of new Set(layouts.map((l) => l.probe))) {
      if (!key.endsWith(probe)) continue;
      const prefix = key.slice(0, key.length - probe.length);
      if (prefix !== "" && !/[./]$/.test(prefix)) continue;
      const alike = layouts.filter((l) => l.probe === probe);
      // Layouts with the same names differ by prefix; an unknown prefix counts as the first layout.
      found.push({ layout: alike.find((l) => l.prefix === prefix) ?? alike[0], prefix });
    }
  }
  return found;
}

/** The network for `kind` among those found; null when there is none, or when the choice is ambiguous. */
export function preferredOf(found: readonly FoundLayout[], kind: WeightKind): FoundLayout | null {
  if (found.length <= 1) return found[0] ?? null;
  for (const prefix of PREFERRED[kind]) {
    const hit = found.find((f) => f.prefix === prefix);
    if (hit) return hit;
  }
  return null;
}

/** The canonical name of a key, or null when the key does not have the prefix. */
export function canonicalName({ layout, prefix }: FoundLayout, key: string): string | null {
  const clean = withoutWrappers(key);
  return clean.startsWith(prefix) ? layout.toCanonical(clean.slice(prefix.length)) : null;
}
