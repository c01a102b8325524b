import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { RcmError } from "../../../../core/error.ts";
import { Rng } from "../../../../core/rng.ts";
import { protoFields } from "../../../../core/text/tokenizers/protobuf.ts";
import { parseSentencePiece, unigramJson } from "../../../../core/text/tokenizers/sentencepiece.ts";

const FOLDER = join(import.meta.dir, "../../../golden/text");
const tiny = new Uint8Array(readFileSync(join(FOLDER, "tiny.model")));
const plain = new Uint8Array(readFileSync(join(FOLDER, "plain.model")));

const varint = (n: number): number[] => (n < 128 ? [n] : [(n % 128) + 128, ...varint(Math.floor(n / 128))]);
const bytes = (field: number, body: Iterable<number>): number[] => [
  ...varint(field * 8 + 2), ...varint([...body].length), ...body,
];
const number = (field: number, n: number): number[] => [...varint(field * 8), ...varint(n)];
const piece = (text: string, type: number, score = -1): number[] =>
  bytes(1, [
    ...bytes(1, new TextEncoder().encode(text)), ...varint(2 * 8 + 5),
    ...new Uint8Array(new Float32Array([score]).buffer), ...number(3, type),
  ]);
const model = (...parts: number[][]): Uint8Array => Uint8Array.from(parts.flat());

function codeOf(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    return error instanceof RcmError ? error.code : `other: ${error}`;
  }
  return "none";
}

describe("protobuf", () => {
  test("fields of every wire type", () => {
    const data = model(
      number(1, 300),
      [...varint(2 * 8 + 1), ...new Uint8Array(new Float64Array([2.5]).buffer)],
      bytes(3, [7, 8]),
      [...varint(4 * 8 + 5), ...new Uint8Array(new Float32Array([-0.5]).buffer)],
    );
    expect([...protoFields(data, "x")].map((f) => [f.number, f.wire, f.value, [...f.bytes]])).toEqual([
      [1, 0, 300, []], [2, 1, 2.5, []], [3, 2, 0, [7, 8]], [4, 5, -0.5, []],
    ]);
  });
  test("a negative number is ten bytes long", () => {
    const minusOne = [255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
    expect([...protoFields(Uint8Array.from([8, ...minusOne]), "x")][0].value).toBe(-1);
  });
  test("cut, endless and unknown parts are E_FORMAT", () => {
    for (const bad of [
      [8], [8, 128], [8, ...Array(11).fill(128)], [10, 5, 1], [10, 255, 255, 255, 255, 15],
      [10, 255, 255, 255, 255, 255, 1], [13, 0], [9, 1], [0, 1], [11], [12], [15],
    ]) {
      expect([bad, codeOf(() => [...protoFields(Uint8Array.from(bad), "x")])]).toEqual([bad, "E_FORMAT"]);
    }
  });
});

describe("sentencepiece", () => {
  test("reads what spm_train wrote", () => {
    const m = parseSentencePiece(tiny, "tiny");
    expect(m).toMatchObject({
      modelType: "unigram", byteFallback: true, addDummyPrefix: true, removeExtraWhitespaces: true,
      escapeWhitespaces: true, whitespaceAsSuffix: false,
    });
    expect(m.pieces.length).toBe(560);
    expect(m.pieces.slice(0, 4)).toEqual([
      { piece: "<pad>", score: 0, type: "control" }, { piece: "</s>", score: 0, type: "control" },
      { piece: "<unk>", score: 0, type: "unknown" }, { piece: "<0x00>", score: 0, type: "byte" },
    ]);
    expect(m.charsmap.length).toBeGreaterThan(200_000);
    const p = parseSentencePiece(plain, "plain");
    expect(p).toMatchObject({ byteFallback: false, removeExtraWhitespaces: false });
    expect(p.charsmap.length).toBe(0);
    expect(p.pieces[3]).toEqual({ piece: "<extra_id_0>", score: 0, type: "user" });
  });

  test("models that cannot be taken over are named", () => {
    const unk = piece("<unk>", 2, 0);
    const spec = (...parts: number[][]): number[] => bytes(2, parts.flat());
    const norm = (...parts: number[][]): number[] => bytes(3, parts.flat());
    const build = (data: Uint8Array) => codeOf(() => unigramJson(parseSentencePiece(data, "m"), "m"));
    expect(build(model(unk, piece("a", 1)))).toBe("none");
    for (const [why, data] of Object.entries({
      bpe: model(unk, spec(number(3, 2))), suffix: model(unk, spec(number(24, 1))),
      unescaped: model(unk, norm(number(5, 0))), none: model(piece("a", 1)), two: model(unk, piece("b", 2)),
      twice: model(unk, piece("a", 1), piece("a", 1)), bytes: model(unk, spec(number(35, 1)), piece("<0x00>", 6)),
      infinite: model(unk, piece("a", 1, Number.NEGATIVE_INFINITY)), nan: model(unk, piece("a", 1, Number.NaN)),
      empty: model(unk, piece("", 1)), type: model(unk, piece("a", 9)), model: model(unk, spec(number(3, 9))),
      utf8: model(unk, bytes(1, bytes(1, [255, 254]))), charsmap: model(unk, norm(bytes(2, [255, 255, 255, 255, 0]))),
    }))
      expect([why, build(data)]).toEqual([why, "E_FORMAT"]);
  });

  test("mutated files: an error or a model, never anything else, and quickly", () => {
    const rng = new Rng(4, 0);
    const small = plain;
    const began = performance.now();
    const seen = { parsed: 0, refused: 0 };
    for (let round = 0; round < 4000; round++) {
      const data = small.slice(0, rng.uniform() < 0.3 ? Math.floor(rng.uniform() * small.length) : small.length);
      for (let i = 0; i < 1 + 6 * rng.uniform() && data.length > 0; i++)
        data[Math.floor(rng.uniform() * data.length)] = Math.floor(256 * rng.uniform());
      const code = codeOf(() => unigramJson(parseSentencePiece(data, "m"), "m"));
      expect(["none", "E_FORMAT"]).toContain(code);
      if (code === "none") seen.parsed++;
      else seen.refused++;
    }
    expect(seen.parsed).toBeGreaterThan(100);
    expect(seen.refused).toBeGreaterThan(100);
    expect(performance.now() - began).toBeLessThan(30_000);
  });
});
