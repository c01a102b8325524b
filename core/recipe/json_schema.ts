import { toJsonSchema } from "@valibot/to-json-schema";
import { recipeSchema } from "./schema.ts";

/** JSON Schema of a recipe file, for editors. */
export function recipeJsonSchema(): Record<string, unknown> {
  const schema = toJsonSchema(recipeSchema, { typeMode: "input", errorMode: "ignore" }) as Record<string, unknown>;
  // A file may inherit any key from the recipe it extends, so no key is required.
  const { required: _required, ...rest } = schema;
  return { ...rest, title: "rcm recipe" };
}
