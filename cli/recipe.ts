import { defineCommand } from "citty";
import { recipeJsonSchema } from "../core/recipe/json_schema.ts";
import { loadRecipe } from "../core/recipe/load.ts";
import { expectKnown, flag, repeated, SET_ARG, withExamples } from "./args.ts";

const args = {
  recipe: { type: "positional", required: true, description: "recipe file" },
  ...SET_ARG,
  json: flag("print JSON"),
} as const;

const show = defineCommand({
  meta: {
    name: "show",
    description: withExamples(
      "Check a recipe and print it with every default.",
      "rcm recipe show recipes/digits/rcm.yaml --set train.steps=100",
    ),
  },
  args,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, args);
    const r = loadRecipe(a.recipe, repeated(rawArgs, "set"));
    process.stdout.write(a.json ? `${JSON.stringify({ hash: r.hash, recipe: r.recipe })}\n` : r.resolved);
  },
});

const schema = defineCommand({
  meta: { name: "schema", description: "Print the JSON Schema of recipes, for editors" },
  args: {},
  run({ rawArgs }) {
    expectKnown(rawArgs, {});
    process.stdout.write(`${JSON.stringify(recipeJsonSchema(), null, 2)}\n`);
  },
});

export default defineCommand({
  meta: { name: "recipe", description: "Check and print recipes" },
  subCommands: { show, schema },
});
