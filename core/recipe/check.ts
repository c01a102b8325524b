import { trigFromSigma } from "../diffusion/path.ts";
import { presetNet } from "../models/families.ts";
import { KEY_RANGE } from "../rng.ts";
import { latentShape, type Recipe } from "./schema.ts";

/** Rules that span several keys: pairs of dotted key and message. */
export function crossChecks(r: Recipe): [key: string, message: string][] {
  const out: [string, string][] = [];
  const { config: preset, latent, text } = presetNet(r.model.preset);
  const [dim, heads] = [r.model.dim ?? preset.dim, r.model.heads ?? preset.heads];
  if (dim % heads !== 0 || (dim / heads) % 2 !== 0)
    out.push([
      "model.heads",
      `found ${heads} heads for width ${dim}, allowed a divisor that leaves an even head width`,
    ]);
  const [C, ...grid] = latentShape(r);
  if (r.data.frames !== null && r.data.frames > r.data.shape[1])
    out.push(["data.frames", `found ${r.data.frames}, allowed at most the ${r.data.shape[1]} frames of data.shape`]);
  if (C !== latent.channels)
    out.push(["data.shape", `found ${C} channels, allowed ${latent.channels} (preset ${r.model.preset})`]);
  grid.forEach(
    (n, i) =>
      n % preset.patch[i] !== 0 &&
      out.push(["data.shape", `found ${n}, allowed multiples of the patch ${preset.patch[i]}`]),
  );
  const { consistency, dmd } = r.objective;
  if (!consistency && !dmd) out.push(["objective", "found neither consistency nor dmd, allowed one of them or both"]);
  if (consistency?.kind === "scm" && consistency.tangent_precision === "f32" && consistency.tangent !== "jvp")
    out.push([
      "objective.consistency.tangent_precision",
      'found "f32" with finite differences, allowed with tangent: jvp',
    ]);
  const flow = consistency?.kind === "flow";
  if (flow && dmd) out.push(["objective.dmd", "found with a flow objective, allowed with scm, dcm and meanflow"]);
  const needsTeacher =
    dmd !== null ||
    consistency?.kind === "scm" ||
    consistency?.kind === "dcm" ||
    (consistency?.kind === "meanflow" && consistency.velocity === "teacher");
  if (needsTeacher && !r.teacher)
    out.push(["teacher", "found nothing, allowed a map with weights (the objective needs a teacher)"]);
  if (r.data.vae_round_trip !== null && latent.vae === null)
    out.push([
      "data.vae_round_trip",
      `found with pixels for latents (preset ${r.model.preset}), allowed with latents of an autoencoder`,
    ]);
  if (text.encoder !== "bytes" && !r.text) {
    const guided = r.teacher && r.teacher.guidance !== 1 && r.teacher.negative_embed === null;
    if (guided)
      out.push(["teacher.negative_embed", "found nothing, allowed a torch file (or text, to encode negative_prompt)"]);
    if (consistency?.kind === "flow" && consistency.text_dropout > 0)
      out.push(["text", "found nothing, allowed a map (text_dropout needs the empty prompt)"]);
    if (r.train.sample_every > 0)
      out.push([
        "train.sample_every",
        `found ${r.train.sample_every} without text, allowed 0 (sample.prompts need an encoder)`,
      ]);
  }
  const globalBatch = r.train.batch * r.train.accumulate;
  if (globalBatch > KEY_RANGE.sample)
    out.push(["train.accumulate", `found a global batch of ${globalBatch}, allowed at most ${KEY_RANGE.sample}`]);
  if (r.train.steps > KEY_RANGE.step)
    out.push(["train.steps", `found ${r.train.steps}, allowed at most ${KEY_RANGE.step}`]);
  if (dmd && dmd.simulation_steps > KEY_RANGE.index)
    out.push(["objective.dmd.simulation_steps", `found ${dmd.simulation_steps}, allowed at most ${KEY_RANGE.index}`]);
  if (r.model.init === "teacher" && !r.teacher)
    out.push(["model.init", 'found "teacher" without a teacher, allowed "random" or a path']);
  out.push(...midTimeChecks(r.sample, flow));
  if (dmd?.fixed_times && dmd.fixed_times.length < dmd.simulation_steps - 1)
    out.push([
      "objective.dmd.fixed_times",
      `found ${dmd.fixed_times.length} times, allowed at least simulation_steps - 1 = ${dmd.simulation_steps - 1}`,
    ]);
  return out;
}

/** Unused times (beyond the steps, or in a flow recipe) may exceed the time of the first step. */
function midTimeChecks({ mid_times: times, steps, sigma_max }: Recipe["sample"], flow: boolean): [string, string][] {
  const out: [string, string][] = [];
  const most = Math.max(1, ...steps);
  const top = trigFromSigma(sigma_max);
  const listed = times ?? [];
  if (times !== null && listed.length < most - 1) {
    const allowed = `allowed null or at least ${most - 1} (sample.steps has ${most})`;
    out.push(["sample.mid_times", `found ${listed.length} times, ${allowed}`]);
  }
  listed.forEach((t, i) => {
    const key = `sample.mid_times.${i}`;
    const falls = t < Math.PI / 2 && (i === 0 || t < listed[i - 1]);
    const used = !flow && i < most - 1;
    if (!falls) out.push([key, `found ${t}, allowed descending times below pi/2`]);
    else if (used && t >= top) out.push([key, `found ${t}, allowed times below atan(sigma_max) = ${top}`]);
  });
  return out;
}
