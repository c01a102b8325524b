/** How one kind of public file spells a family's parameters. */
export interface Layout {
  name: string;
  /** A key that every network of this layout has. */
  probe: string;
  /** What a file of this layout has before every key. */
  prefix: string;
  /** The family's own name of a key without prefix, and back. */
  toOwn(key: string): string;
  fromOwn(name: string): string;
}

export interface FoundLayout {
  layout: Layout;
  /** What precedes every key of the network; may be empty. */
  prefix: string;
}

export const WEIGHT_KINDS = ["ema", "student"] as const;
/** Which weights of a training run are meant. */
export type WeightKind = (typeof WEIGHT_KINDS)[number];

/** The prefix of ComfyUI's diffusion networks, whatever their family. */
export const COMFYUI_PREFIX = "model.diffusion_model.";

/** Inserted by wrappers (torch.compile, activation checkpointing, FSDP) in the middle of names; they mean nothing. */
const WRAPPERS = /(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\./g;
const withoutWrappers = (key: string): string => key.replace(WRAPPERS, "");

/** Of several networks in one file, the first of these that is present is meant. */
const PREFERRED: Record<WeightKind, string[]> = {
  ema: ["student.ema/", "net_ema.", "model_ema.", "ema.", "", "net.", COMFYUI_PREFIX],
  student: ["student.master/", "student.weights/", "net.", "model.", "", COMFYUI_PREFIX],
};

/** Every network of some layouts that a set of keys holds, one entry for each prefix. */
export function networksIn(layouts: readonly Layout[], keys: Iterable<string>): FoundLayout[] {
  const found: FoundLayout[] = [];
  for (const raw of keys) {
    const key = withoutWrappers(raw);
    for (const probe of new Set(layouts.map((l) => l.probe))) {
      if (!key.endsWith(probe)) continue;
      const prefix = key.slice(0, key.length - probe.length);
      if (prefix !== "" && !/[./]$/.test(prefix)) continue;
      const alike = layouts.filter((l) => l.probe === probe);
      // Layouts that share their names differ in the prefix; any other prefix is taken for the first one.
      found.push({ layout: alike.find((l) => l.prefix === prefix) ?? alike[0], prefix });
    }
  }
  return found;
}

/**
 * The network that `kind` means among those found. Null when there is none, or several and `kind` does not say which.
 */
export function preferredOf(found: readonly FoundLayout[], kind: WeightKind): FoundLayout | null {
  if (found.length <= 1) return found[0] ?? null;
  for (const prefix of PREFERRED[kind]) {
    const hit = found.find((f) => f.prefix === prefix);
    if (hit) return hit;
  }
  return null;
}

/** The family's own name of a key, or null when the key is outside the prefix. */
export function ownName({ layout, prefix }: FoundLayout, key: string): string | null {
  const clean = withoutWrappers(key);
  return clean.startsWith(prefix) ? layout.toOwn(clean.slice(prefix.length)) : null;
}
