import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { writeFileAtomic } from "../io/atomic.ts";
import { encodePng } from "../io/png.ts";
import type { FrameSink } from "./frames.ts";
import type { VideoSize } from "./sizes.ts";

/** A folder with one PNG per frame; renamed to its path once it is complete. */
export class PngFolderSink implements FrameSink {
  private count = 0;
  private readonly temporary: string;

  constructor(
    readonly folder: string,
    readonly size: VideoSize,
  ) {
    this.temporary = join(dirname(folder), `.${basename(folder)}.${process.pid}.tmp`);
    rmSync(this.temporary, { recursive: true, force: true });
    mkdirSync(this.temporary, { recursive: true });
  }

  frame(pixels: Uint8Array): void {
    const name = `frame_${String(this.count++).padStart(4, "0")}.png`;
    writeFileAtomic(join(this.temporary, name), encodePng(pixels, this.size.width, this.size.height, 3));
  }

  async close(): Promise<string> {
    if (existsSync(this.folder)) rmSync(this.folder, { recursive: true });
    renameSync(this.temporary, this.folder);
    return this.folder;
  }

  abort(): void {
    rmSync(this.temporary, { recursive: true, force: true });
  }
}

/** A single PNG, the frame of a still image. */
export class PngSink implements FrameSink {
  private png: Uint8Array | null = null;

  constructor(
    readonly path: string,
    readonly size: VideoSize,
  ) {}

  frame(pixels: Uint8Array): void {
    this.png = encodePng(pixels, this.size.width, this.size.height, 3);
  }

  async close(): Promise<string> {
    writeFileAtomic(this.path, this.png ?? new Uint8Array(0));
    return this.path;
  }

  abort(): void {
    this.png = null;
  }
}
