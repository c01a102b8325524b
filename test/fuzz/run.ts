import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fuzz, inputOf, place } from "./fuzz.ts";
import { TARGETS } from "./targets.ts";

/**
 * Fuzzes every reader: `sh cli/bun.sh test/fuzz/run.ts [--inputs N] [--seed S] [--target NAME]`. Each piece of a target
 * runs in a child process, so that a crash or a hang is a finding too; inputs that fail are left in build/fuzz. Exit
 * status 1 when there are any.
 */
const flag = (name: string, otherwise: string): string => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : (process.argv[at + 1] ?? otherwise);
};
const PIECE = 2500;
const HANG_MS = 120_000;
const [seed, wanted] = [Number(flag("seed", "1")), flag("target", "")];
const targets = TARGETS.filter((t) => wanted === "" || t.name === wanted);
const child = flag("piece", "");

if (child !== "") {
  const [first, count] = child.split("+").map(Number);
  const outcome = fuzz(targets[0], seed, first, count, { onInput: (index) => process.send?.({ index }) });
  for (const { index, input } of outcome.findings.slice(0, 20))
    place(join(import.meta.dir, "../../build/fuzz", `${targets[0].name.replace(/ /g, "_")}-${seed}-${index}`), input);
  const findings = outcome.findings.map(({ target, index, what }) => ({ target, index, what }));
  process.send?.({ outcome: { ...outcome, findings } });
  process.exit(0);
}

interface Sent {
  index?: number;
  outcome?: ReturnType<typeof fuzz>;
}

/** Runs one piece in a child; null stands for a crash or a hang at `last`. */
async function piece(
  name: string, first: number, count: number,
): Promise<{ last: number; outcome: ReturnType<typeof fuzz> | null; why: string }> {
  let [last, outcome, heard, why]: [number, ReturnType<typeof fuzz> | null, number, string] = [
    first, null, Date.now(), "",
  ];
  const proc = Bun.spawn(
    [process.execPath, import.meta.path, "--seed", String(seed), "--target", name, "--piece", `${first}+${count}`],
    {
      stdout: "ignore",
      stderr: "inherit",
      ipc: (message: Sent) => {
        heard = Date.now();
        if (message.index !== undefined) last = message.index;
        if (message.outcome) outcome = message.outcome;
      },
    },
  );
  const watchdog = setInterval(() => {
    if (Date.now() - heard < HANG_MS) return;
    why = "hangs";
    proc.kill(9);
  }, 1000);
  const status = await proc.exited;
  clearInterval(watchdog);
  return { last, outcome, why: why || `ended with status ${status}` };
}

const total = Number(flag("inputs", "100000"));
const each = Math.ceil(total / targets.length);
const began = Date.now();
let [inputs, failures] = [0, 0];
const report: unknown[] = [];
for (const target of targets) {
  const sum = {
    target: target.name, inputs: 0, ends: {} as Record<string, number>, slowestMs: 0, largestArray: 0,
    findings: [] as { index: number; what: string }[],
  };
  for (let first = 0; first < each; first += PIECE) {
    const count = Math.min(PIECE, each - first);
    const { last, outcome, why } = await piece(target.name, first, count);
    if (!outcome) {
      sum.findings.push({ index: last, what: why });
      place(
        join(import.meta.dir, "../../build/fuzz", `${target.name.replace(/ /g, "_")}-${seed}-${last}`),
        inputOf(target, seed, last),
      );
      sum.inputs += last - first + 1;
      continue;
    }
    sum.inputs += outcome.inputs;
    for (const [k, n] of Object.entries(outcome.ends)) sum.ends[k] = (sum.ends[k] ?? 0) + n;
    sum.slowestMs = Math.max(sum.slowestMs, outcome.slowestMs);
    sum.largestArray = Math.max(sum.largestArray, outcome.largestArray);
    sum.findings.push(...outcome.findings);
  }
  inputs += sum.inputs;
  failures += sum.findings.length;
  report.push(sum);
  const ends = Object.entries(sum.ends).map(([k, n]) => `${k} ${n}`).join(", ");
  process.stdout.write(
    `${target.name.padEnd(24)} ${String(sum.inputs).padStart(7)} inputs: ${ends}; ` +
      `slowest ${sum.slowestMs.toFixed(0)} ms, largest array ${sum.largestArray} bytes, ` +
      `${sum.findings.length} findings\n`,
  );
  for (const f of sum.findings.slice(0, 5))
    process.stdout.write(`  input ${f.index}: ${f.what.split("\n").slice(0, 6).join("\n    ")}\n`);
}
mkdirSync(join(import.meta.dir, "../../build/fuzz"), { recursive: true });
writeFileSync(
  join(import.meta.dir, "../../build/fuzz/report.json"),
  `${JSON.stringify({ seed, inputs, failures, seconds: (Date.now() - began) / 1000, targets: report }, null, 2)}\n`,
);
process.stdout.write(`${inputs} inputs in ${((Date.now() - began) / 1000).toFixed(0)} s, ${failures} findings\n`);
process.exitCode = failures === 0 ? 0 : 1;
