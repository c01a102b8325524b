import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { RcmError } from "../error.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { swappedShape } from "../data/latents.ts";
import { decodePng } from "../io/png_read.ts";
import { sampleReduce, type Tensor } from "../tensor.ts";
import { pushFrames, type FrameSink } from "../video/frames.ts";
import { findFfmpeg, Mp4Sink } from "../video/mp4.ts";
import { PngFolderSink, PngSink } from "../video/png_frames.ts";
import { pngOf, SheetRow, stack } from "../video/sheet.ts";
import { videoOf, type VideoScale } from "../video/sizes.ts";
import type { VideoVae } from "./parts.ts";
import type { Stages } from "./stages.ts";
import type { ManifestEntry } from "../io/manifest.ts";

export const VIDEO_FORMATS = ["mp4", "png"] as const;
export type VideoFormat = (typeof VIDEO_FORMATS)[number];

/** Maximum number of rows on the sheet of a folder. */
const MAX_ROWS = 64;

export interface WrittenVideo {
  /** Paths relative to the folder. */
  file: string;
  sheet: string;
}

export interface WriterOptions {
  format: VideoFormat;
  scale: VideoScale;
  stages: Stages;
}

/** Writes decoded videos into a folder. Without ffmpeg, or when it fails, it warns once and writes frames as PNGs. */
export class VideoWriter {
  private ffmpeg: string | null;
  private warned = false;

  constructor(
    readonly folder: string,
    private readonly o: WriterOptions,
    private readonly warn: (message: string) => void,
  ) {
    this.ffmpeg = o.format === "mp4" ? findFfmpeg() : null;
  }

  /**
   * Decodes one latent into `name.mp4`, `name.png` (a still) or a folder `name`, and its contact sheet.
   * Shapes: latent [1, T, C, Y, X].
   */
  async write(vae: VideoVae, latent: Tensor, name: string): Promise<WrittenVideo> {
    const { frames } = videoOf(swappedShape(latent.shape.slice(1)), this.o.scale.strides);
    if (this.o.format === "mp4" && frames > 1 && this.ffmpeg === null) {
      this.warnOnce("ffmpeg is not there (install it, or name one in RCM_FFMPEG): frames are written as PNGs");
    }
    try {
      return await this.decodeTo(vae, latent, name);
    } catch (error) {
      if (!(error instanceof RcmError) || error.op !== "ffmpeg") throw error;
      this.warnOnce(`${error.message}: frames are written as PNGs`);
      this.ffmpeg = null;
      return this.decodeTo(vae, latent, name);
    }
  }

  private warnOnce(message: string): void {
    if (!this.warned) this.warn(message);
    this.warned = true;
  }

  private sink(name: string, size: { width: number; height: number; frames: number }): FrameSink {
    if (size.frames === 1) return new PngSink(join(this.folder, `${name}.png`), size);
    if (this.ffmpeg !== null) {
      const { rate } = this.o.scale;
      return new Mp4Sink(join(this.folder, `${name}.mp4`), { ...size, rate }, this.ffmpeg);
    }
    return new PngFolderSink(join(this.folder, name), size);
  }

  private async decodeTo(vae: VideoVae, latent: Tensor, name: string): Promise<WrittenVideo> {
    const video = videoOf(swappedShape(latent.shape.slice(1)), this.o.scale.strides);
    const sink = this.sink(name, video);
    const row = new SheetRow(video, video.frames);
    let count = 0;
    try {
      this.o.stages.run("decode", () =>
        vae.decode(latent, (chunk) => {
          this.o.stages.run("write", () => {
            if (sampleReduce(chunk, "nonfinite").some((n) => n > 0)) {
              const message = `frames of sample ${name} hold values that are not finite`;
              throw new RcmError("E_NONFINITE", message, { op: "decode" });
            }
            pushFrames(chunk, [{ frame: (pixels) => (sink.frame(pixels), row.frame(pixels)) }]);
            count += chunk.shape[2];
          });
        }));
      if (count !== video.frames) {
        const detail = { op: "decode", want: video.frames, got: count };
        throw new RcmError("E_INTERNAL", "the decoder gave another number of frames", detail);
      }
    } catch (error) {
      sink.abort();
      throw error;
    }
    return this.o.stages.runAsync("write", async () => {
      const path = await sink.close();
      const sheet = `${name}_sheet.png`;
      writeFileAtomic(join(this.folder, sheet), pngOf(row.row()));
      return { file: path.slice(this.folder.length).replace(/^\//, ""), sheet };
    });
  }
}

/** One sheet of a folder with a row per video, in order. Null when there are none. */
export function folderSheet(folder: string, entries: readonly ManifestEntry[], file: string): string | null {
  const sheets = entries.flatMap((e) => (e.sheet !== null && existsSync(join(folder, e.sheet)) ? [e.sheet] : []));
  const rows = sheets.slice(0, MAX_ROWS);
  if (rows.length === 0) return null;
  const path = join(folder, file);
  writeFileAtomic(path, pngOf(stack(rows.map((r) => decodePng(readFileSync(join(folder, r)), r)))));
  return path;
}
