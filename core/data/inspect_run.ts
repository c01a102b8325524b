import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { latentSheet } from "../sample/sheet.ts";
import { inspectShards, type InspectReport } from "./inspect.ts";

export interface InspectRunOptions {
  inputs: readonly string[];
  statistics: number;
  /** Samples on the contact sheet. */
  count: number;
  /** PNG to write; null: none. */
  sheet: string | null;
  /** Weights of the VAE that decodes the sheet's frames; null: latent channels are shown. */
  vae: string | null;
  device: "auto" | "cpu" | "cuda";
  threads?: number;
  onSample?: (done: number, total: number) => void;
}

export interface InspectSummary extends InspectReport {
  sheet: string | null;
}

/** Most cells in a row of the sheet. */
const COLUMNS = 4;

/** Inspects a data set and draws its contact sheet. Throws: E_IO; E_ARG for a VAE without a sheet. */
export function inspectRun(o: InspectRunOptions): InspectSummary {
  if (o.vae !== null && o.sheet === null) throw new RcmError("E_ARG", "--vae decodes the contact sheet; give --sheet too", { op: "usage" });
  const { report, sheet } = inspectShards({ inputs: o.inputs, statistics: o.statistics, sheet: o.sheet === null ? 0 : o.count, onSample: o.onSample });
  const first = sheet[0]?.latent;
  if (o.sheet === null || !first) return { ...report, sheet: null };
  const alike = sheet.map((s) => s.latent).filter((l) => l.shape.join() === first.shape.join());
  writeFileAtomic(o.sheet, latentSheet(alike, Math.min(COLUMNS, alike.length)));
  return { ...report, sheet: o.sheet };
}
