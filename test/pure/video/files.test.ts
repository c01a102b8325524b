import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodePng } from "../../../core/io/png.ts";
import { decodePng } from "../../../core/io/png_read.ts";
import { ImageFile } from "../../../core/video/image.ts";
import { evenly, SheetRow, shrink, stack } from "../../../core/video/sheet.ts";
import { presetNet } from "../../../core/models/families.ts";
import type { VideoSpec } from "../../../core/models/family.ts";
import {
  adaptiveSize, parseSize, patchSize, trainedSize, videoLatentShape, videoOf,
} from "../../../core/video/sizes.ts";

const NET = presetNet("wan2.1-1.3b");
const VIDEO = NET.family.video as VideoSpec;
const STRIDE = 16;
const { latent: LATENT } = NET;

describe("sizes", () => {
  test("every entry is whole patches, has its aspect, and about the pixels of its resolution", () => {
    expect(patchSize(NET)).toEqual({ width: STRIDE, height: STRIDE });
    for (const [r, aspects] of Object.entries(VIDEO.sizes)) {
      for (const a of Object.keys(aspects)) {
        const { width, height } = trainedSize(VIDEO, r, a);
        const [w, h] = a.split(":").map(Number);
        expect([width % STRIDE, height % STRIDE]).toEqual([0, 0]);
        expect(Math.abs(width / height / (w / h) - 1)).toBeLessThan(0.03);
        expect((width * height) / (r === "480p" ? 832 * 480 : 1280 * 720)).toBeWithin(0.74, 1.03);
      }
    }
  });
  test("latents: 8 pixels, 4 frames after the first", () => {
    expect(videoLatentShape(81, trainedSize(VIDEO, "480p", "16:9"), LATENT)).toEqual([16, 21, 60, 104]);
    expect(videoLatentShape(77, trainedSize(VIDEO, "720p", "16:9"), LATENT)).toEqual([16, 20, 90, 160]);
    expect(videoLatentShape(1, trainedSize(VIDEO, "480p", "1:1"), LATENT)).toEqual([16, 1, 80, 80]);
    expect(videoOf([16, 21, 60, 104], LATENT.strides)).toEqual({ frames: 81, width: 832, height: 480 });
    for (const frames of [0, 2, 80, 82, 5.5])
      expect(() => videoLatentShape(frames, { width: 16, height: 16 }, LATENT)).toThrow(
        expect.objectContaining({ code: "E_ARG" }),
      );
  });
  test("a size of one's own", () => {
    expect(parseSize("704x544", NET)).toEqual({ width: 704, height: 544 });
    for (const bad of ["704", "704x540", "0x16", "700x544", "axb", "-16x16"])
      expect(() => parseSize(bad, NET)).toThrow(expect.objectContaining({ code: "E_ARG" }));
  });
  test("adaptive: the picture's aspect, the resolution's area", () => {
    const base = trainedSize(VIDEO, "720p", "16:9");
    expect(adaptiveSize(base, { width: 1920, height: 1080 }, NET)).toEqual(base);
    for (const picture of [{ width: 3000, height: 2000 }, { width: 600, height: 900 }, { width: 1000, height: 1000 }]) {
      const s = adaptiveSize(base, picture, NET);
      expect([s.width % STRIDE, s.height % STRIDE]).toEqual([0, 0]);
      expect(Math.abs((s.width * s.height) / (1280 * 720) - 1)).toBeLessThan(0.03);
      expect(Math.abs(s.width / s.height / (picture.width / picture.height) - 1)).toBeLessThan(0.03);
    }
  });
});

const noise = (n: number): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 11) & 255);

describe("PNG in", () => {
  test("what the encoder wrote, and grey as three channels", () => {
    for (const [w, h] of [[1, 1], [7, 5], [64, 33]]) {
      const pixels = noise(w * h * 3);
      expect(decodePng(encodePng(pixels, w, h, 3))).toEqual({ pixels, width: w, height: h });
      const grey = noise(w * h);
      expect(decodePng(encodePng(grey, w, h, 1)).pixels).toEqual(
        Uint8Array.from({ length: w * h * 3 }, (_, i) => grey[Math.floor(i / 3)]),
      );
    }
  });
  test("every filter: what another encoder wrote", async () => {
    // A gradient with noise makes an adaptive encoder use several filters.
    const [w, h] = [61, 47];
    const pixels = Uint8Array.from(
      { length: w * h * 3 },
      (_, i) =>
        (3 * Math.floor(i / 3 / w) +
          2 * (Math.floor(i / 3) % w) +
          40 * (i % 3) +
          ((noise((i % 97) + 1).at(-1) as number) % 5)) &
        255,
    );
    const again = await new Bun.Image(encodePng(pixels, w, h, 3)).png({ compressionLevel: 9 }).bytes();
    expect(decodePng(again).pixels).toEqual(pixels);
  });
  test("damage is E_FORMAT, whatever it is", () => {
    const whole = encodePng(noise(300), 10, 10, 3);
    for (let i = 0; i < 400; i++) {
      const broken = whole.slice(0, i % 3 === 0 ? (i * 7) % whole.length : whole.length);
      if (i % 3 !== 0) broken[(i * 31) % broken.length] ^= 1 << (i % 8);
      expect(() => decodePng(broken)).toThrow(expect.objectContaining({ code: "E_FORMAT" }));
    }
  });
});

describe("pictures in", () => {
  const dir = mkdtempSync(join(tmpdir(), "rcm-image-"));
  test("PNG and JPEG, at their own size and another; a flat picture stays flat", async () => {
    const [w, h] = [90, 60];
    const flat = Uint8Array.from({ length: w * h * 3 }, (_, i) => [200, 100, 50][i % 3]);
    const png = encodePng(flat, w, h, 3);
    writeFileSync(join(dir, "a.png"), png);
    writeFileSync(join(dir, "a.jpg"), await new Bun.Image(png).jpeg({ quality: 95 }).bytes());
    for (const f of ["a.png", "a.jpg"]) {
      const image = await ImageFile.open(join(dir, f));
      expect(image.size).toEqual({ width: w, height: h });
      for (const filter of ["bilinear", "bicubic", "lanczos"] as const) {
        for (const size of [null, { width: 48, height: 32 }, { width: 144, height: 96 }]) {
          const p = await image.pixels(size, filter);
          expect([p.width, p.height]).toEqual(size ? [size.width, size.height] : [w, h]);
          expect(p.pixels.every((v, i) => Math.abs(v - flat[i % 3]) <= 3)).toBe(true);
        }
      }
    }
    rmSync(dir, { recursive: true });
  });
  test("what is not there, and what is no picture", async () => {
    await expect(ImageFile.open(join(dir, "absent.png"))).rejects.toMatchObject({ code: "E_IO" });
    await expect(ImageFile.open(import.meta.path)).rejects.toMatchObject({ code: "E_FORMAT" });
  });
});

describe("contact sheets", () => {
  test("first to last, evenly, no more than there are", () => {
    expect(evenly(81)).toEqual([0, 11, 23, 34, 46, 57, 69, 80]);
    expect(evenly(5)).toEqual([0, 1, 2, 3, 4]);
    expect(evenly(1)).toEqual([0]);
  });
  test("shrinking is the mean of blocks", () => {
    const pixels = Uint8Array.from([0, 0, 0, 100, 10, 20, 50, 50, 50, 50, 10, 20, 9, 9, 9, 9, 9, 9]);
    expect(shrink(pixels, { width: 3, height: 2 }, 2)).toEqual({
      width: 1,
      height: 1,
      pixels: Uint8Array.from([Math.round(159 / 4), Math.round(29 / 4), Math.round(49 / 4)]),
    });
  });
  test("a row holds the chosen frames in order; rows stack", () => {
    const size = { width: 16, height: 16 };
    const row = new SheetRow(size, 17);
    for (let i = 0; i < 17; i++) row.frame(new Uint8Array(768).fill(i));
    const r = row.row();
    expect([r.width, r.height]).toEqual([8 * 16 + 9 * 4, 24]);
    expect(evenly(17).map((_, k) => r.pixels[(10 * r.width + 4 + k * 20 + 8) * 3])).toEqual(evenly(17));
    const both = stack([r, { width: 2, height: 1, pixels: new Uint8Array(6) }]);
    expect([both.width, both.height, both.pixels[24 * r.width * 3], both.pixels[24 * r.width * 3 + 6]]).toEqual([
      r.width, 25, 0, 255,
    ]);
  });
});
