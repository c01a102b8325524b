import { latentOfPixels, readIdx, SIDE } from "../data/digits.ts";
import { writeSafetensors } from "../io/safetensors.ts";
import { DigitClassifier } from "../models/digits/classifier.ts";
import { AdamW } from "../optim/adamw.ts";
import { learningRate } from "../optim/lr.ts";
import { crossEntropy } from "../ops/cross_entropy.ts";
import { Rng, streamOf } from "../rng.ts";
import type { Device, Tensor } from "../tensor.ts";
import { constant, Tape } from "../tape.ts";

export interface ClassifierOptions {
  out: string;
  epochs: number;
  batch: number;
  lr: number;
  seed: number;
  onEpoch?: (epoch: number, loss: number, accuracy: number) => void;
}

/** Images of a split as latents on the device. Shapes: [n, 1, 1, 28, 28] f32. */
export function digitLatents(device: Device, split: "train" | "test"): { latents: Tensor; labels: Int32Array } {
  const idx = readIdx(split);
  const all = new Float32Array(idx.count * SIDE * SIDE);
  for (let i = 0; i < idx.count; i++) all.set(latentOfPixels(idx.pixels(i)), i * SIDE * SIDE);
  return {
    latents: device.fromHost({ dtype: "f32", shape: [idx.count, 1, 1, SIDE, SIDE], data: new Uint8Array(all.buffer) }),
    labels: Int32Array.from({ length: idx.count }, (_, i) => idx.label(i)),
  };
}

/** Trains the feature and label classifier on the training digits; returns its accuracy on the held-out ones. */
export function trainClassifier(device: Device, o: ClassifierOptions): { accuracy: number; path: string } {
  using _all = device.scope();
  const model = DigitClassifier.create(device, true);
  model.params.init(o.seed);
  const opt = new AdamW(model.params, { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.05, maxGradNorm: 0 });
  const train = digitLatents(device, "train");
  const test = digitLatents(device, "test");
  const n = train.labels.length;
  const steps = Math.floor(n / o.batch) * o.epochs;
  const size = SIDE * SIDE;
  let accuracy = 0;
  for (let epoch = 0; epoch < o.epochs; epoch++) {
    const order = shuffled(n, new Rng(o.seed, streamOf({ use: "data", step: epoch })));
    let total = 0;
    for (let from = 0; from + o.batch <= n; from += o.batch) {
      using _scope = device.scope();
      const rows = order.subarray(from, from + o.batch);
      const x = device.empty([o.batch, 1, 1, SIDE, SIDE], "f32");
      rows.forEach((row, b) => x.window(b * size, [size]).set(train.latents.window(row * size, [size])));
      // Noise augmentation keeps the features smooth around generated digits.
      x.axpy(device.randn(x.shape, "f32", o.seed, streamOf({ use: "noise", step: opt.updates })), 0.1);
      const labels = device.fromValues(Array.from(rows, (row) => train.labels[row]), [o.batch], "i32");
      const tape = new Tape(device, { record: true });
      const loss = crossEntropy(tape, model.forward(tape, constant(x)).logits, labels);
      tape.backward(loss, device.fromValues(new Float64Array(o.batch).fill(1 / o.batch), [o.batch], "f64"));
      const lr = learningRate(opt.updates, {
        lr: o.lr,
        warmupSteps: 100,
        decaySteps: steps - 100,
        lrMin: 0,
        totalSteps: steps,
      });
      opt.step(lr, 0, null);
      total += loss.x.values().reduce((a, b) => a + b, 0);
    }
    accuracy = accuracyOf(model.classify(test.latents).logits, test.labels);
    o.onEpoch?.(epoch, total / n, accuracy);
  }
  writeSafetensors(o.out, model.params.entries(), {
    kind: "digit-classifier",
    accuracy: accuracy.toFixed(4),
    seed: String(o.seed),
    epochs: String(o.epochs),
  });
  return { accuracy, path: o.out };
}

export function shuffled(n: number, rng: Rng): Int32Array {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = rng.below(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

function accuracyOf(logits: Float32Array, labels: Int32Array): number {
  const classes = logits.length / labels.length;
  let hits = 0;
  labels.forEach((label, i) => {
    const row = logits.subarray(i * classes, (i + 1) * classes);
    if (row.indexOf(Math.max(...row)) === label) hits++;
  });
  return hits / labels.length;
}
