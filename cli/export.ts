import { defineCommand } from "citty";
import { dirname, join } from "node:path";
import { existsSync, statSync } from "node:fs";
import { exportWeights } from "../core/export/run.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import { expectKnown, oneOf, OUTPUT_ARGS } from "./args.ts";
import { mebibytes, result } from "./ui.ts";

const args = {
  weights: { type: "positional", required: true, description: "run folder, checkpoint or weight file" },
  out: { type: "string", required: true, description: "target; the ending chooses the format: .safetensors, .pth, .pt", valueHint: "FILE" },
  kind: { type: "string", default: "ema", description: "weights of a run: ema or student", valueHint: "KIND" },
  dtype: { type: "string", default: "bf16", description: "bf16 or f32", valueHint: "DTYPE" },
  prefix: { type: "string", default: "", description: "put before every key, for example net.", valueHint: "TEXT" },
  ...OUTPUT_ARGS,
} as const;

/** Name and hash of the recipe of a run, when the weights lie in one. */
function recipeMetadata(weights: string): Record<string, string> {
  const folder = existsSync(weights) && statSync(weights).isDirectory() ? weights : join(dirname(weights), "..");
  const path = join(folder, "recipe.yaml");
  if (!existsSync(path)) return {};
  const { recipe, hash } = loadRecipe(path);
  return { recipe: recipe.name, recipe_hash: hash };
}

export default defineCommand({
  meta: { name: "export", description: "Write weights under the original Wan keys; the file is read back and compared.\n\n  rcm export runs/rcm --out rcm-digits.safetensors\n  rcm export runs/rcm --out rcm-digits.pth --dtype f32 --prefix net." },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const s = exportWeights({ weights: a.weights, kind: oneOf(a.kind, "kind", ["ema", "student"]), out: a.out, dtype: oneOf(a.dtype, "dtype", ["bf16", "f32"]), prefix: a.prefix, metadata: { ...recipeMetadata(a.weights), weights: a.kind } });
    result(a.json, s, `${s.out}: ${s.tensors} tensors, ${s.parameters.toLocaleString("en")} parameters, ${s.dtype}, ${mebibytes(s.bytes)} (from ${s.source})`);
  },
});
