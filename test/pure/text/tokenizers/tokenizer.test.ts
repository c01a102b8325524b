import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Tokenizer as Library } from "tokenizers";
import { RcmError } from "../../../../core/error.ts";
import { Rng } from "../../../../core/rng.ts";
import { parseSentencePiece, unigramJson } from "../../../../core/text/tokenizers/sentencepiece.ts";
import { Tokenizer } from "../../../../core/text/tokenizers/tokenizer.ts";
import { Unigram } from "../../../../core/text/tokenizers/unigram.ts";
import expected from "../../../golden/text/expected.json" with { type: "json" };

const FOLDER = join(import.meta.dir, "../../../golden/text");
const LONG = 100_000;
let folder = "";
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "rcm-text-"))));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const modelPath = (name: string): string => join(FOLDER, `${name}.model`);
const jsonOf = (name: string) =>
  unigramJson(parseSentencePiece(new Uint8Array(readFileSync(modelPath(name))), name), name);
const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};
const plainIds = (t: Tokenizer, text: string): number[] => t.encode(text, LONG).ids.slice(0, -1);

/** The layout in which transformers publishes the tokenizers of T5's family. */
function published(name: string): string {
  const json = JSON.parse(jsonOf(name).json);
  const charsmap = json.normalizer.normalizers.find((n: { type: string }) => n.type === "Precompiled");
  json.normalizer = {
    type: "Sequence",
    normalizers: [charsmap, { type: "Replace", pattern: { Regex: " {2,}" }, content: " " }],
  };
  json.pre_tokenizer = {
    type: "Sequence",
    pretokenizers: [
      { type: "WhitespaceSplit" },
      { type: "Metaspace", replacement: "\u2581", prepend_scheme: "always", split: true },
    ],
  };
  json.post_processor = {
    type: "TemplateProcessing",
    single: [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "</s>", type_id: 0 } }],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: { "</s>": { id: "</s>", ids: [1], tokens: ["</s>"] } },
  };
  json.truncation = { direction: "Right", max_length: 5, strategy: "LongestFirst", stride: 0 };
  return JSON.stringify(json);
}

/**
 * Texts on which the library's compiled normaliser, and so the public code, differs from spm_encode: it looks at whole
 * graphemes.
 */
const GRAPHEMES = ["\u0301 combining", "\uff76\uff9e", "a\u0301\u0323", "\uff73\uff9e"];
/** And one in which a byte's piece is spelled out. */
const SPELLED = "<0x41>";

describe("tokenizer from a .model file", () => {
  test("ids of spm_encode", () => {
    let special = 0;
    for (const [name, rows] of [
      ["tiny", expected.tiny], ["plain", expected.plain], ["plain", expected.user],
    ] as const) {
      const t = Tokenizer.open(modelPath(name));
      for (const [text, want] of rows as [string, number[]][]) {
        if (name === "tiny" && (GRAPHEMES.some((g) => text.includes(g)) || text.includes(SPELLED))) special++;
        else expect([name, text, plainIds(t, text)]).toEqual([name, text, want]);
      }
    }
    expect(special).toBe(5);
  });

  test("ids of the library, on those texts too", async () => {
    const all = [["tiny", expected.tiny], ["plain", expected.plain], ["plain", expected.user]] as const;
    for (const [name, rows] of all) {
      const t = Tokenizer.open(modelPath(name));
      const { json, prefix } = jsonOf(name);
      const library = Library.fromString(json);
      for (const [text] of rows as [string, number[]][]) {
        const want = (
          await library.encode(text === "" ? "" : prefix + text, null, { addSpecialTokens: false })
        ).getIds();
        expect([text, plainIds(t, text)]).toEqual([text, want]);
      }
    }
  });

  test("the published JSON of the same model gives the same ids, and the library's with its own template", async () => {
    const json = published("tiny");
    const [fromJson, fromModel] = [Tokenizer.open(file("tokenizer.json", json)), Tokenizer.open(modelPath("tiny"))];
    const library = Library.fromString(json);
    library.disableTruncation();
    for (const [text] of expected.tiny as [string, number[]][]) {
      expect([text, fromJson.encode(text, LONG).ids]).toEqual([text, fromModel.encode(text, LONG).ids]);
      expect(fromJson.encode(text, LONG).ids).toEqual((await library.encode(text, null, null)).getIds());
      library.setTruncation(9);
      expect(fromJson.encode(text, 9).ids).toEqual((await library.encode(text, null, null)).getIds());
      library.disableTruncation();
    }
    expect([fromJson.size, fromJson.end, fromJson.pad]).toEqual([560, 1, 0]);
  });

  test("the end token stays when text is cut", () => {
    const t = Tokenizer.open(modelPath("tiny"));
    const whole = t.encode("a cat jumps", LONG);
    expect(whole).toEqual({ ids: [261, 276, 310, 259, 537, 319, 320, 260, 1], full: 9 });
    expect(t.encode("a cat jumps", 4)).toEqual({ ids: [261, 276, 310, 1], full: 9 });
    expect(t.encode("a cat jumps", 1)).toEqual({ ids: [1], full: 9 });
    expect(t.encode("", 4)).toEqual({ ids: [1], full: 1 });
    expect(t.pieces(t.encode("a</s>b", LONG).ids)).toEqual(["\u2581a", "</s>", "b", "</s>"]);
    expect(t.pieces([261, 1, 0, 100_000])).toEqual(["\u2581a", "</s>", "<pad>", null]);
  });

  test("what is no tokenizer is named", () => {
    const code = (path: string): string => {
      try {
        Tokenizer.open(path);
      } catch (error) {
        return error instanceof RcmError ? error.code : `other: ${error}`;
      }
      return "none";
    };
    const json = (change: (j: Record<string, never>) => void): string => {
      const j = JSON.parse(jsonOf("plain").json);
      change(j);
      return file("changed.json", JSON.stringify(j));
    };
    expect(code(json(() => {}))).toBe("none");
    expect(code(join(folder, "absent"))).toBe("E_IO");
    for (const path of [
      () => file("empty", ""),
      () => file("text", "hello, this is no tokenizer"),
      () => file("cut.json", jsonOf("plain").json.slice(0, 999)),
      () => file("list.json", '{"model":3}'),
      () => json((j) => Object.assign(j.model, { type: "BPE" })),
      () => json((j) => Object.assign(j.model, { unk_id: 9999 })),
      () => json((j) => Object.assign(j.model, { vocab: [["a", "b"]] })),
      () => json((j) => Object.assign(j, { normalizer: { type: "NoSuch" } })),
      () => json((j) => Object.assign(j, { added_tokens: [{ id: 1 }] })),
    ])
      expect([path.toString(), code(path())]).toEqual([path.toString(), "E_FORMAT"]);
  });
});

describe("unigram model", () => {
  test("the best cut by trying all", () => {
    const rng = new Rng(8, 0);
    const letters = ["a", "b", "é", "🙂"];
    const vocab: [string, number][] = [
      ["<unk>", 0], ["a", -2], ["b", -2.5], ["ab", -3], ["aba", -5.5], ["é", -3], ["éa", -4], ["bb", -4.5],
      ["a🙂", -6],
    ];
    const model = new Unigram(vocab, 0, false);
    const known = new Map(vocab.slice(1).map(([p, s], i) => [p, { score: s, id: i + 1 }]));
    const best = (text: string[]): { score: number; ids: number[] } => {
      if (text.length === 0) return { score: 0, ids: [] };
      const options = text.flatMap((_, n) => {
        const piece = known.get(text.slice(0, n + 1).join(""));
        const head = piece ?? (n === 0 ? { score: -16, id: 0 } : null);
        if (!head) return [];
        const rest = best(text.slice(n + 1));
        return [{ score: head.score + rest.score, ids: [head.id, ...rest.ids] }];
      });
      return options.reduce((a, b) => (b.score > a.score ? b : a));
    };
    const scoreOf = (ids: number[], text: string[]): number =>
      ids.reduce((s, id) => s + (id === 0 ? 0 : vocab[id][1]), -16 * text.filter((c) => c === "🙂").length);
    for (let i = 0; i < 200; i++) {
      const text = Array.from(
        { length: 1 + Math.floor(8 * rng.uniform()) },
        () => letters[Math.floor(3 * rng.uniform())],
      );
      expect(scoreOf(model.encode(text.join("")), text)).toBeCloseTo(best(text).score, 9);
    }
    expect(model.encode("a🙂🙂🙂b")).toEqual([8, 0, 2]);
    expect(model.encode("")).toEqual([]);
  });
});
