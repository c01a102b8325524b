/** One evaluated sampler: a method at a number of steps. Figures that do not apply are NaN and show as a dash. */
export interface EvalRow {
  /** Name of the method, such as "rcm"; rows of one name form one line in the plots. */
  name: string;
  steps: number;
  /** Network evaluations per sample, guidance included. */
  guidanceEvals: number;
  fd: number;
  fdStd?: number;
  precision: number;
  recall: number;
  density: number;
  coverage: number;
  vendi: number;
  vendiWithin: number;
  agreement: number;
  agreementLow: number;
  agreementHigh: number;
  secondsPerSample: number;
  /** Teacher's seconds per sample over this row's. */
  speedup: number;
  /** PNG bytes of a grid of samples. */
  grid?: Uint8Array;
}

export interface EvalReport {
  title: string;
  recipe: string;
  recipeHash: string;
  dataset: string;
  realCount: number;
  fakeCount: number;
  teacher: EvalRow;
  /** Students. */
  rows: EvalRow[];
  /** Held-out real samples against real samples: the best that figures can be. */
  reference?: EvalRow;
  created: string;
  command: string;
  device: string;
  notes: string[];
}

/** One figure of the result table. */
export interface Column {
  head: string;
  /** What the figure says, in a few words. */
  about: string;
  better: "low" | "high" | null;
  value: (row: EvalRow) => number;
  text: (row: EvalRow) => string;
}

export const MISSING = "–";

/** Four significant digits or so, without exponent in the usual range. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return MISSING;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.001 || size >= 1e7) return value.toExponential(2);
  return value.toFixed(size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.1 ? 3 : 4);
}

const ratio = (value: number): string => (Number.isFinite(value) ? value.toFixed(3) : MISSING);
const count = (value: number): string => (Number.isFinite(value) && value > 0 ? formatCount(value) : MISSING);

/** A count with thin groups of three: 50,000. */
export function formatCount(value: number): string {
  return Number.isInteger(value) ? value.toLocaleString("en-US") : formatNumber(value);
}

export function formatPercent(value: number): string {
  return Number.isFinite(value) ? `${(100 * value).toFixed(1)}%` : MISSING;
}

export function formatSeconds(value: number): string {
  if (!Number.isFinite(value) || value <= 0) return MISSING;
  const [scaled, unit] = value < 1e-3 ? [value * 1e6, "µs"] : value < 1 ? [value * 1e3, "ms"] : [value, "s"];
  return `${scaled >= 100 ? scaled.toFixed(0) : scaled.toPrecision(3)} ${unit}`;
}

export function formatSpeedup(value: number): string {
  return Number.isFinite(value) && value > 0 ? `${value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2)}×` : MISSING;
}

function interval(row: EvalRow): string {
  if (!Number.isFinite(row.agreement)) return MISSING;
  if (!Number.isFinite(row.agreementLow) || !Number.isFinite(row.agreementHigh)) return formatPercent(row.agreement);
  const [low, high] = [row.agreementLow, row.agreementHigh].map((end) => (100 * end).toFixed(1));
  return `${formatPercent(row.agreement)} (${low}–${high})`;
}

function withError(row: EvalRow): string {
  const value = formatNumber(row.fd);
  if (row.fdStd === undefined || !Number.isFinite(row.fdStd)) return value;
  // The error has as many decimals as the value.
  const decimals = value.includes("e") ? -1 : (value.split(".")[1] ?? "").length;
  return `${value} ± ${decimals < 0 ? formatNumber(row.fdStd) : row.fdStd.toFixed(decimals)}`;
}

export const COLUMNS: readonly Column[] = [
  { head: "Steps", about: "sampling steps", better: null, value: (r) => r.steps, text: (r) => count(r.steps) },
  {
    head: "Evals",
    about: "network evaluations per sample, guidance included",
    better: null,
    value: (r) => r.guidanceEvals,
    text: (r) => count(r.guidanceEvals),
  },
  {
    head: "FD",
    about: "Fréchet distance of features to the real samples, ± bootstrap standard error",
    better: "low",
    value: (r) => r.fd,
    text: withError,
  },
  {
    head: "Precision",
    about: "share of samples that look real",
    better: "high",
    value: (r) => r.precision,
    text: (r) => ratio(r.precision),
  },
  {
    head: "Recall",
    about: "share of real samples that the model can make",
    better: "high",
    value: (r) => r.recall,
    text: (r) => ratio(r.recall),
  },
  {
    head: "Density",
    about: "precision that outliers cannot inflate; 1 is ideal, more is possible",
    better: "high",
    value: (r) => r.density,
    text: (r) => ratio(r.density),
  },
  {
    head: "Coverage",
    about: "share of real samples with a generated neighbour",
    better: "high",
    value: (r) => r.coverage,
    text: (r) => ratio(r.coverage),
  },
  {
    head: "Vendi",
    about: "effective number of distinct samples",
    better: "high",
    value: (r) => r.vendi,
    text: (r) => formatNumber(r.vendi),
  },
  {
    head: "Vendi/prompt",
    about: "the same among samples of one prompt, mean over prompts",
    better: "high",
    value: (r) => r.vendiWithin,
    text: (r) => formatNumber(r.vendiWithin),
  },
  {
    head: "Agreement",
    about: "share that a classifier sees as the prompt asked, with Wilson 95% interval",
    better: "high",
    value: (r) => r.agreement,
    text: interval,
  },
  {
    head: "Time/sample",
    about: "wall-clock time per sample",
    better: "low",
    value: (r) => r.secondsPerSample,
    text: (r) => formatSeconds(r.secondsPerSample),
  },
  {
    head: "Speed-up",
    about: "against the teacher",
    better: "high",
    value: (r) => r.speedup,
    text: (r) => formatSpeedup(r.speedup),
  },
];

/** What kind of row a table line shows. */
export type RowKind = "teacher" | "student" | "reference";

/** All rows in table order: teacher, students, reference. */
export function orderedRows(report: EvalReport): { row: EvalRow; kind: RowKind }[] {
  const students = report.rows.map((row) => ({ row, kind: "student" as const }));
  const reference = report.reference ? [{ row: report.reference, kind: "reference" as const }] : [];
  return [{ row: report.teacher, kind: "teacher" }, ...students, ...reference];
}

/** Column heading with the direction that is better. */
export function heading(column: Column): string {
  return column.better === null ? column.head : `${column.head} ${column.better === "low" ? "↓" : "↑"}`;
}

/**
 * Rows whose cell in this column is bold: the students that print the best value (ties count, unless all are equal).
 */
export function bestRows(column: Column, rows: readonly EvalRow[]): Set<EvalRow> {
  const valid = rows.filter((row) => Number.isFinite(column.value(row)) && column.text(row) !== MISSING);
  if (column.better === null || valid.length === 0) return new Set();
  const values = valid.map(column.value);
  const best = column.better === "low" ? Math.min(...values) : Math.max(...values);
  if (values.length > 1 && values.every((value) => value === best)) return new Set();
  return new Set(valid.filter((row) => column.value(row) === best));
}

/** "rcm, 2 steps", or only the name where steps do not apply. */
export function rowLabel(row: EvalRow): string {
  return row.steps > 0 ? `${row.name}, ${row.steps} ${row.steps === 1 ? "step" : "steps"}` : row.name;
}

/** Makes text safe inside HTML elements and quoted attributes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
