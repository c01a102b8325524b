import { gibibytes } from "../core/units.ts";
import type { RunPlan } from "../core/train/plan.ts";
import { EXIT } from "./exit.ts";
import { log, result } from "./ui.ts";

const tera = (flop: number): string => `${(flop / 1e12).toPrecision(4)} TFLOP`;

const column = (bytes: number): string => gibibytes(bytes, 2).padStart(12);
const count = (n: number): string => n.toLocaleString("en");

function memoryWords(m: RunPlan["memory"]): string[] {
  const verdict =
    m.budget === null
      ? m.budgetSource
      : `${gibibytes(m.budget, 2)} available (${m.budgetSource}): ${m.fits ? "fits" : "DOES NOT FIT"}`;
  const modes = Object.entries(m.byCheckpoint).map(([mode, bytes]) => `${mode} ${gibibytes(bytes, 2)}`);
  return [
    `memory on one ${m.backend === "cuda" ? "card" : "machine"}`,
    ...m.items.map((i) => `  ${column(i.bytes)}  ${i.name}${i.dtype === "" ? "" : `, ${i.dtype}`}`),
    `  ${column(m.activations.bytes)}  activations, checkpoint ${m.activations.checkpoint} (${m.activations.turn})`,
    ...(m.overhead > 0 ? [`  ${column(m.overhead)}  CUDA context, libraries and gaps (assumed)`] : []),
    `  ${column(m.total)}  in all; ${verdict}`,
    `  by checkpoint mode: ${modes.join(", ")}`,
  ];
}

function dataWords({ path, shards, firstShard, latent, embed }: NonNullable<RunPlan["data"]>): string {
  const contents = `${firstShard} samples in the first, latents ${latent}, embeddings ${embed}`;
  return `data      ${path}: ${shards} shards, ${contents}`;
}

function diskWords({ checkpoint, kept, most, free }: RunPlan["disk"]): string {
  const peak = `up to ${gibibytes(most, 2)} while one is written, ${gibibytes(free, 2)} free`;
  return `disk      ${gibibytes(checkpoint, 2)} a checkpoint, ${kept} kept: ${peak}`;
}

function text(p: RunPlan): string {
  const { compute: c } = p;
  const run = `${tera(c.flopPerStep)} a step on average, ${tera(c.run)} the whole run`;
  return [
    `${p.recipe}: ${count(c.parameters)} parameters, ${count(c.tokens)} tokens a sample`,
    ...p.weights.map((w) => {
      const keys = `${w.format}, ${w.layout} keys, ${w.tensors} tensors, ${gibibytes(w.bytes, 2)}`;
      return `${w.role.padEnd(9)} ${w.path}: ${keys}`;
    }),
    ...(p.data ? [dataWords(p.data)] : []),
    ...memoryWords(p.memory),
    diskWords(p.disk),
    `work      ${count(c.batchTokens)} tokens and ${run}`,
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
