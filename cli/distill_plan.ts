import type { RunPlan } from "../core/train/plan.ts";
import { EXIT } from "./exit.ts";
import { log, result } from "./ui.ts";

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2).padStart(8)} GiB`;
const tera = (flop: number): string => `${(flop / 1e12).toPrecision(4)} TFLOP`;

function text(p: RunPlan): string {
  const { memory: m, disk, compute: c } = p;
  const items = m.items.map((i) => `  ${gib(i.bytes)}  ${i.name}${i.dtype === "" ? "" : `, ${i.dtype}`}`);
  const modes = Object.entries(m.byCheckpoint).map(([mode, bytes]) => `${mode} ${gib(bytes).trim()}`).join(", ");
  return [
    `${p.recipe}: ${c.parameters.toLocaleString("en")} parameters, ${c.tokens.toLocaleString("en")} tokens a sample`,
    ...p.weights.map(
      (w) =>
        `${w.role.padEnd(9)} ${w.path}: ${w.format}, ${w.layout} keys, ${w.tensors} tensors, ${gib(w.bytes).trim()}`,
    ),
    ...(p.data
      ? [
          `data      ${p.data.path}: ${p.data.shards} shards, ${p.data.firstShard} samples in the first, latents ${p.data.latent}, embeddings ${p.data.embed}`,
        ]
      : []),
    `memory on one ${m.backend === "cuda" ? "card" : "machine"}`,
    ...items,
    `  ${gib(m.activations.bytes)}  activations, checkpoint ${m.activations.checkpoint} (${m.activations.turn})`,
    ...(m.overhead > 0 ? [`  ${gib(m.overhead)}  CUDA context, libraries and gaps (assumed)`] : []),
    `  ${gib(m.total)}  in all; ${m.budget === null ? m.budgetSource : `${gib(m.budget).trim()} there (${m.budgetSource}): ${m.fits ? "fits" : "DOES NOT FIT"}`}`,
    `  by checkpoint mode: ${modes}`,
    `disk      ${gib(disk.checkpoint).trim()} a checkpoint, ${disk.kept} kept: up to ${gib(disk.most).trim()} while one is written, ${gib(disk.free).trim()} free`,
    `work      ${c.batchTokens.toLocaleString("en")} tokens and ${tera(c.flopPerStep)} a step on average, ${tera(c.run)} the whole run`,
    ...c.turns.map((t) => `          ${tera(t.flop).padStart(14)}  ${t.name}`),
    ...p.problems.map((problem) => `PROBLEM   ${problem}`),
  ].join("\n");
}

/** Prints a plan; exit status 3 when the run would fail. */
export function showPlan(plan: RunPlan, json: boolean): void {
  result(json, plan, text(plan));
  if (plan.ok) return;
  log.error(`${plan.problems.length} problem${plan.problems.length === 1 ? "" : "s"}; the run would fail`);
  process.exitCode = EXIT.data;
}
