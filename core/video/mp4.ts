import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { env } from "../env.ts";
import { RcmError } from "../error.ts";
import type { FrameSink } from "./frames.ts";
import type { VideoScale, VideoSize } from "./sizes.ts";

/** The ffmpeg to use: RCM_FFMPEG, else the one on PATH; null if not found. */
export function findFfmpeg(): string | null {
  const named = env.ffmpeg;
  if (named !== null) return existsSync(named) ? named : null;
  return Bun.which("ffmpeg");
}

/**
 * A pipe with a blocking writing end, made from a named pipe. Frames come from synchronous code, so no event loop runs
 * that could drain a buffered stream; a blocking write applies back-pressure when ffmpeg is slower.
 */
function blockingPipe(path: string): { read: number; write: number } {
  rmSync(path, { force: true });
  const made = spawnSync("mkfifo", ["-m", "600", path]);
  if (made.status !== 0) {
    throw new RcmError(
      "E_IO",
      `cannot make a pipe in ${dirname(path)}: ${String(made.stderr ?? made.error?.message).trim()}`,
      { op: "ffmpeg" },
    );
  }
  // Opening read-write first keeps the other two opens from blocking.
  const both = openSync(path, "r+");
  const [read, write] = [openSync(path, "r"), openSync(path, "w")];
  closeSync(both);
  rmSync(path);
  return { read, write };
}

/** Size and frame rate of the video to encode. */
export type EncodedVideo = VideoSize & Pick<VideoScale, "rate">;

/** Arguments of ffmpeg: x264 at visually lossless quality, in the pixel format that every player supports. */
const encoding = ({ width, height, rate }: EncodedVideo): string[] => [
  "-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-f", "rawvideo", "-pixel_format", "rgb24",
  "-video_size", `${width}x${height}`, "-framerate", String(rate), "-i", "pipe:0", "-an",
  "-c:v", "libx264", "-crf", "18", "-preset", "medium", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4",
];

/** An mp4 that ffmpeg encodes as frames arrive; renamed to its path once it is complete. */
export class Mp4Sink implements FrameSink {
  private readonly temporary: string;
  private readonly log: string;
  private readonly child: ChildProcess;
  private readonly ended: Promise<number | null>;
  private pipe = -1;
  private failed: unknown = null;

  constructor(
    readonly path: string,
    video: EncodedVideo,
    ffmpeg: string,
  ) {
    const hidden = (ending: string): string => join(dirname(path), `.${basename(path)}.${process.pid}.${ending}`);
    this.temporary = hidden("mp4.tmp");
    this.log = hidden("log.tmp");
    mkdirSync(dirname(path), { recursive: true });
    const errors = openSync(this.log, "w");
    const { read, write } = blockingPipe(hidden("pipe.tmp"));
    this.pipe = write;
    this.child = spawn(ffmpeg, [...encoding(video), this.temporary], { stdio: [read, "ignore", errors] });
    this.ended = new Promise((resolve) => {
      this.child.on("exit", (code) => resolve(code));
      this.child.on("error", (error) => {
        this.failed ??= error;
        resolve(null);
      });
    });
    closeSync(read);
    closeSync(errors);
  }

  frame(pixels: Uint8Array): void {
    if (this.failed !== null) return; // close() reports the reason
    try {
      for (let at = 0; at < pixels.length; ) at += writeSync(this.pipe, pixels, at, pixels.length - at);
    } catch (cause) {
      this.failed = cause;
    }
  }

  async close(): Promise<string> {
    this.closePipe();
    const status = await this.ended;
    const output = existsSync(this.log) ? readFileSync(this.log, "utf8").trim() : "";
    rmSync(this.log, { force: true });
    if (status !== 0 || this.failed !== null) {
      rmSync(this.temporary, { force: true });
      const why =
        output.split("\n").slice(-3).join("; ") || (this.failed as Error | null)?.message || `exit status ${status}`;
      throw new RcmError("E_IO", `ffmpeg could not write ${this.path}: ${why}`, { op: "ffmpeg", cause: this.failed });
    }
    renameSync(this.temporary, this.path);
    return this.path;
  }

  abort(): void {
    this.failed ??= new Error("given up");
    this.child.kill("SIGKILL");
    this.closePipe();
    for (const f of [this.temporary, this.log]) rmSync(f, { force: true });
  }

  private closePipe(): void {
    if (this.pipe >= 0) closeSync(this.pipe);
    this.pipe = -1;
  }
}
