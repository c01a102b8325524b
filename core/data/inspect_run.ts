import type { HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { encodePng, grid } from "../io/png.ts";
import { latentSheet, threeFrames } from "./sheet.ts";
import { Device, type DeviceName } from "../tensor.ts";
import { pushFrames } from "../video/frames.ts";
import { shrink } from "../video/sheet.ts";
import { openVae } from "../weights/vae.ts";
import { cutFrames } from "./latents.ts";
import { inspectShards, type InspectReport } from "./inspect.ts";
import { decodeWhole } from "../models/round_trip.ts";

export interface InspectRunOptions {
  inputs: readonly string[];
  statistics: number;
  /** Samples on the contact sheet. */
  count: number;
  /** PNG to write; null: none. */
  sheet: string | null;
  /** Weights of the VAE that decodes the sheet's frames; null: latent channels are shown. */
  vae: string | null;
  device: DeviceName;
  threads?: number;
  onSample?: (done: number, total: number) => void;
}

export interface InspectSummary extends InspectReport {
  sheet: string | null;
}

/** Approximate width of a decoded frame on the sheet. */
const CELL = 208;
/** Maximum number of samples in a row of the sheet. */
const COLUMNS = 4;

/** Inspects a data set and draws its contact sheet. Throws: E_IO; E_ARG for a VAE without a sheet. */
export function inspectRun(o: InspectRunOptions): InspectSummary {
  if (o.vae !== null && o.sheet === null) {
    throw new RcmError("E_ARG", "--vae decodes the contact sheet; give --sheet too", { op: "usage" });
  }
  const { report, sheet } = inspectShards({
    inputs: o.inputs,
    statistics: o.statistics,
    sheet: o.sheet === null ? 0 : o.count,
    onSample: o.onSample,
  });
  const first = sheet[0]?.latent;
  if (o.sheet === null || !first) return { ...report, sheet: null };
  const alike = sheet.map((s) => s.latent).filter((l) => l.shape.join() === first.shape.join());
  const columns = Math.min(COLUMNS, alike.length);
  writeFileAtomic(o.sheet, o.vae === null ? latentSheet(alike, columns) : decodedSheet(o, o.vae, alike, columns));
  return { ...report, sheet: o.sheet };
}

/** Latent frames of a sample that are decoded for the sheet. */
const DECODED = 3;

/** A PNG of the first decoded frames, three side by side for each sample. */
function decodedSheet(o: InspectRunOptions, weights: string, latents: HostTensor[], columns: number): Uint8Array {
  using device = Device.open({ device: o.device, threads: o.threads });
  const vae = openVae(device, weights, device.backend.kind === "cuda" ? "bf16" : "f32");
  let size = { width: 0, height: 0 };
  const cells = latents.flatMap((latent) => {
    using _scope = device.scope();
    const few = cutFrames(latent, Math.min(DECODED, latent.shape.at(-3) as number));
    const video = decodeWhole(vae, device.fromHost({ ...few, shape: [1, ...few.shape] }).to("f32")).to("f32");
    size = { width: video.shape[4], height: video.shape[3] };
    const frames: Uint8Array[] = [];
    pushFrames(video, [{ frame: (pixels) => void frames.push(pixels.slice()) }]);
    return threeFrames(frames.length).map((t) => frames[t]);
  });
  const factor = Math.max(1, Math.floor(size.width / CELL));
  const small = cells.map((pixels) => shrink(pixels, size, factor));
  const [{ width, height }] = small;
  const sheet = grid(
    small.map((s) => s.pixels),
    { width, height, channels: 3, columns: (columns * cells.length) / latents.length },
  );
  return encodePng(sheet.pixels, sheet.width, sheet.height, 3);
}
