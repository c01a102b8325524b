import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findFfmpeg, Mp4Sink } from "../../../core/video/mp4.ts";
import { PngFolderSink, PngSink } from "../../../core/video/png_frames.ts";

const ffmpeg = findFfmpeg();
if (ffmpeg === null) console.warn("skipped: mp4: ffmpeg is not installed");
const withFfmpeg = ffmpeg === null ? test.skip : test;
const SIZE = { width: 64, height: 48 };
let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "rcm-mp4-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A frame of one grey level with a brighter left half. */
const frame = (level: number): Uint8Array =>
  Uint8Array.from({ length: 64 * 48 * 3 }, (_, i) => (Math.floor(i / 3) % 64 < 32 ? level + 60 : level));

/** A script that stands for ffmpeg. */
function script(name: string, body: string): string {
  const path = join(dir, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

describe("mp4", () => {
  withFfmpeg("frames come back in order, at 16 a second, close to what they were", async () => {
    const path = join(dir, "a.mp4");
    const sink = new Mp4Sink(path, { ...SIZE, rate: 16 }, ffmpeg as string);
    // More bytes than a pipe holds: the writer has to wait for the reader.
    for (let i = 0; i < 33; i++) sink.frame(frame(5 * i));
    expect(await sink.close()).toBe(path);
    expect(readdirSync(dir)).toEqual(["a.mp4"]);
    const raw = spawnSync(
      ffmpeg as string,
      ["-loglevel", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
      { maxBuffer: 1 << 26 },
    ).stdout;
    expect(raw.length).toBe(33 * 64 * 48 * 3);
    for (let i = 0; i < 33; i++) {
      const at = i * 64 * 48 * 3;
      const [left, right] = [raw[at + (64 * 20 + 10) * 3], raw[at + (64 * 20 + 50) * 3]];
      expect(Math.abs(left - (5 * i + 60))).toBeLessThan(8);
      expect(Math.abs(right - 5 * i)).toBeLessThan(8);
    }
    const about = spawnSync(ffmpeg as string, ["-hide_banner", "-i", path], { encoding: "utf8" }).stderr;
    expect(about).toContain("yuv420p");
    expect(about).toContain("16 fps");
    expect(about).toContain("64x48");
  });

  test("one that fails at once, dies half way or is missing: E_IO with its words, nothing left behind", async () => {
    const cases: [string, RegExp][] = [
      [script("fails", "echo 'Unknown encoder libx264' >&2; exit 1"), /Unknown encoder libx264/],
      [script("dies", "head -c 20000 >/dev/null; echo 'no space' >&2; exit 3"), /no space/],
      [join(dir, "absent"), /could not write/],
    ];
    for (const [program, words] of cases) {
      const path = join(dir, "b.mp4");
      const sink = new Mp4Sink(path, { ...SIZE, rate: 16 }, program);
      for (let i = 0; i < 40; i++) sink.frame(frame(i));
      await expect(sink.close()).rejects.toMatchObject({ code: "E_IO", message: expect.stringMatching(words) });
      expect(existsSync(path)).toBe(false);
      expect(readdirSync(dir).filter((f) => f.startsWith("."))).toEqual([]);
    }
  });

  withFfmpeg("one given up leaves nothing behind, and an older video of that name stays", async () => {
    const path = join(dir, "a.mp4");
    const before = existsSync(path) ? readFileSync(path) : null;
    const sink = new Mp4Sink(path, { ...SIZE, rate: 16 }, ffmpeg as string);
    sink.frame(frame(1));
    sink.abort();
    expect(readdirSync(dir).filter((f) => f.startsWith("."))).toEqual([]);
    expect(before === null || Buffer.compare(before, readFileSync(path)) === 0).toBe(true);
  });
});

describe("png", () => {
  test("a folder of frames appears whole; a still is one file", async () => {
    const folder = join(dir, "frames");
    const sink = new PngFolderSink(folder, SIZE);
    for (let i = 0; i < 3; i++) sink.frame(frame(i));
    expect(existsSync(folder)).toBe(false);
    await sink.close();
    expect(readdirSync(folder).sort()).toEqual(["frame_0000.png", "frame_0001.png", "frame_0002.png"]);
    const still = new PngSink(join(dir, "still.png"), SIZE);
    still.frame(frame(2));
    await still.close();
    expect(Buffer.compare(readFileSync(join(dir, "still.png")), readFileSync(join(folder, "frame_0002.png")))).toBe(0);
  });
});
