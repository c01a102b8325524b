import type { HostTensor } from "../../dtype.ts";
import { dense, denseAct } from "../../nn/linear.ts";
import { ParamSet, type ParamSpec } from "../../nn/params.ts";
import { patchify } from "../../ops/patchify.ts";
import type { Device, Tensor } from "../../tensor.ts";
import { constant, Tape, type Var } from "../../tape.ts";

/** Widths of the digit classifier: 4x4 patches, a local layer, two dense layers (the second gives the features). */
const PATCH = 4;
const LOCAL = 32;
const HIDDEN = 256;
const FEATURES = 64;
const CLASSES = 10;
const TOKENS = (28 / PATCH) ** 2;

function specs(): ParamSpec[] {
  const layer = (name: string, n: number, k: number): ParamSpec[] => [
    { name: `${name}.weight`, shape: [n, k], init: { kind: "normal", std: Math.sqrt(2 / k) } },
    { name: `${name}.bias`, shape: [n], init: { kind: "zeros" } },
  ];
  return [
    ...layer("local", LOCAL, PATCH * PATCH),
    ...layer("hidden", HIDDEN, TOKENS * LOCAL),
    ...layer("features", FEATURES, HIDDEN),
    ...layer("logits", CLASSES, FEATURES),
  ];
}

/** Classifies digits for evaluation. Shapes: latents [B, 1, 1, 28, 28] -> features [B, 64], logits [B, 10]. */
export class DigitClassifier {
  private constructor(
    readonly device: Device,
    readonly params: ParamSet,
  ) {}

  static create(device: Device, trainable: boolean): DigitClassifier {
    return new DigitClassifier(device, ParamSet.create(device, specs(), "f32", trainable));
  }

  static load(device: Device, weights: ReadonlyMap<string, HostTensor>, what: string): DigitClassifier {
    const model = DigitClassifier.create(device, false);
    model.params.load(weights, what);
    return model;
  }

  forward(tape: Tape, x: Var): { features: Var; logits: Var } {
    const B = x.x.shape[0];
    const patches = patchify(tape, x, { patch: [1, PATCH, PATCH], order: "channel_first", dtype: null });
    const local = tape.reshape(denseAct(tape, this.params, "local", patches, "gelu_tanh"), [B, TOKENS * LOCAL]);
    const features = denseAct(
      tape,
      this.params,
      "features",
      denseAct(tape, this.params, "hidden", local, "gelu_tanh"),
      "gelu_tanh",
    );
    return { features, logits: dense(tape, this.params, "logits", features) };
  }

  /** Evaluates in chunks of samples; output rows keep the order. */
  classify(latents: Tensor, chunk = 256): { features: Float32Array; logits: Float32Array } {
    const n = latents.shape[0];
    const features = new Float32Array(n * FEATURES);
    const logits = new Float32Array(n * CLASSES);
    for (let from = 0; from < n; from += chunk) {
      using _scope = this.device.scope();
      const B = Math.min(chunk, n - from);
      const part = latents.window(from * (latents.numel / n), [B, ...latents.shape.slice(1)]);
      const out = this.forward(new Tape(this.device, { record: false }), constant(part));
      features.set(out.features.x.values(), from * FEATURES);
      logits.set(out.logits.x.values(), from * CLASSES);
    }
    return { features, logits };
  }
}

export const CLASSIFIER_SIZES = { features: FEATURES, classes: CLASSES } as const;
