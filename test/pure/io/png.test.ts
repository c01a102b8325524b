import { describe, expect, test } from "bun:test";
import { crc32, inflateSync } from "node:zlib";
import { RcmError } from "../../../core/error.ts";
import { encodePng, grid } from "../../../core/io/png.ts";
import { lcg } from "../metrics/data.ts";

/** A decoder of its own for 8-bit grey and RGB with filters None and Up; checks every chunk's length and CRC. */
function decodePng(png: Uint8Array): { width: number; height: number; channels: number; pixels: Uint8Array } {
  const view = new DataView(png.buffer, png.byteOffset, png.length);
  expect([...png.subarray(0, 8)]).toEqual([137, 80, 78, 71, 13, 10, 26, 10]);
  const chunks: [string, Uint8Array][] = [];
  let at = 8;
  while (at < png.length) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...png.subarray(at + 4, at + 8));
    expect(view.getUint32(at + 8 + length)).toBe(crc32(png.subarray(at + 4, at + 8 + length)));
    chunks.push([type, png.subarray(at + 8, at + 8 + length)]);
    at += 12 + length;
  }
  expect(at).toBe(png.length);
  expect(chunks.map(([type]) => type)).toEqual(["IHDR", "IDAT", "IEND"]);
  const [header, data] = [chunks[0][1], inflateSync(chunks[1][1])];
  const size = new DataView(header.buffer, header.byteOffset);
  const [width, height] = [size.getUint32(0), size.getUint32(4)];
  expect([header[8], header[10], header[11], header[12]]).toEqual([8, 0, 0, 0]);
  const channels = header[9] === 0 ? 1 : 3;
  const stride = width * channels;
  expect(data.length).toBe((stride + 1) * height);
  const pixels = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = data[y * (stride + 1)];
    expect([0, 2]).toContain(filter);
    for (let x = 0; x < stride; x++) {
      const above = filter === 2 && y > 0 ? pixels[(y - 1) * stride + x] : 0;
      pixels[y * stride + x] = data[y * (stride + 1) + 1 + x] + above;
    }
  }
  return { width, height, channels, pixels };
}

function code(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof RcmError) return error.code;
    throw error;
  }
  return "nothing";
}

describe("encodePng", () => {
  for (const [width, height, channels] of [
    [1, 1, 1],
    [5, 3, 3],
    [28, 28, 1],
    [17, 40, 3],
  ] as const) {
    test(`noise comes back, ${width} x ${height} x ${channels}`, () => {
      const random = lcg(width);
      const pixels = Uint8Array.from({ length: width * height * channels }, () => random() * 256);
      expect(decodePng(encodePng(pixels, width, height, channels))).toEqual({ width, height, channels, pixels });
    });
  }

  test("smooth pixels come back through the Up filter, and small", () => {
    const pixels = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i % 192) + Math.floor(i / 192));
    const png = encodePng(pixels, 64, 64, 3);
    expect(decodePng(png).pixels).toEqual(pixels);
    expect(png.length).toBeLessThan(1000);
  });

  test("reads pixels through a window of a larger buffer", () => {
    const pixels = Uint8Array.from({ length: 20 }, (_, i) => i).subarray(3, 15);
    expect(decodePng(encodePng(pixels, 4, 1, 3)).pixels).toEqual(new Uint8Array(pixels));
  });

  test("refuses sizes that do not fit", () => {
    expect(code(() => encodePng(new Uint8Array(5), 2, 3, 1))).toBe("E_SHAPE");
    expect(code(() => encodePng(new Uint8Array(0), 0, 3, 1))).toBe("E_ARG");
    expect(code(() => encodePng(new Uint8Array(6), 1.5, 4, 1))).toBe("E_ARG");
    expect(code(() => encodePng(new Uint8Array(8), 2, 2, 2 as 1))).toBe("E_ARG");
  });
});

describe("grid", () => {
  const at = (g: { pixels: Uint8Array; width: number }, x: number, y: number, channels = 1): number[] => [
    ...g.pixels.subarray((y * g.width + x) * channels, (y * g.width + x + 1) * channels),
  ];

  test("places images row by row with padding around and a white rest", () => {
    const images = [1, 2, 3].map((value) => new Uint8Array(6).fill(value));
    const g = grid(images, { width: 3, height: 2, channels: 1, columns: 2, pad: 1 });
    expect([g.width, g.height, g.pixels.length]).toEqual([9, 7, 63]);
    expect([at(g, 1, 1), at(g, 3, 2), at(g, 5, 1), at(g, 1, 4), at(g, 7, 2)].flat()).toEqual([1, 1, 2, 3, 2]);
    expect([at(g, 0, 0), at(g, 4, 1), at(g, 1, 3), at(g, 5, 4), at(g, 8, 6)].flat()).toEqual([255, 255, 255, 255, 255]);
    expect(g.pixels.reduce((n, v) => n + Number(v !== 255), 0)).toBe(18);
  });

  test("scales by whole factors and keeps channels together", () => {
    const g = grid([Uint8Array.of(10, 11, 12, 20, 21, 22)], {
      width: 2,
      height: 1,
      channels: 3,
      columns: 4,
      pad: 0,
      scale: 3,
    });
    expect([g.width, g.height]).toEqual([6, 3]);
    for (let y = 0; y < 3; y++)
      for (let x = 0; x < 6; x++) expect(at(g, x, y, 3)).toEqual(x < 3 ? [10, 11, 12] : [20, 21, 22]);
    expect(decodePng(encodePng(g.pixels, g.width, g.height, 3)).pixels).toEqual(g.pixels);
  });

  test("is no wider than its images", () => {
    expect(grid([new Uint8Array(4)], { width: 2, height: 2, channels: 1, columns: 10 }).width).toBe(6);
  });

  test("refuses what cannot be laid out", () => {
    const image = new Uint8Array(4);
    expect(code(() => grid([], { width: 2, height: 2, channels: 1, columns: 1 }))).toBe("E_ARG");
    expect(code(() => grid([image], { width: 2, height: 2, channels: 1, columns: 0 }))).toBe("E_ARG");
    expect(code(() => grid([image], { width: 2, height: 2, channels: 1, columns: 1, pad: -1 }))).toBe("E_ARG");
    expect(code(() => grid([image], { width: 2, height: 2, channels: 1, columns: 1, pad: 0, scale: 0 }))).toBe("E_ARG");
    expect(code(() => grid([image, new Uint8Array(3)], { width: 2, height: 2, channels: 1, columns: 1 }))).toBe(
      "E_SHAPE",
    );
  });
});
