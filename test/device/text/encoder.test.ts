import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { truncateSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, numel, type HostTensor } from "../../../core/dtype.ts";
import { writeSafetensors } from "../../../core/io/safetensors.ts";
import { writeTorch } from "../../../core/io/torch.ts";
import { umt5KeyIn, umt5Params } from "../../../core/models/umt5/keys.ts";
import { PromptEncoder } from "../../../core/text/encoder.ts";
import { loadEncoder } from "../../../core/weights/encoder.ts";
import { onEachDevice } from "../../harness/device.ts";
import { TINY_TOKENIZER, TINY_UMT5, tinyUmt5 } from "../../harness/tiny_umt5.ts";

/** The prompt encoder from file to cache. */

const LONG = 60_000;
const PROMPTS = ["a cat jumps", "", "Waves break on black sand; gulls circle above the cliffs. ".repeat(4)];
const DIM = TINY_UMT5.dim;

onEachDevice((device, test) => {
  describe("prompt encoder", () => {
    let folder = "";
    let wan = "";
    const at = (name: string): string => join(folder, name);
    const renamed = (weights: Map<string, HostTensor>, prefix = ""): [string, HostTensor][] =>
      [...weights].map(([n, t]) => [prefix + umt5KeyIn("transformers", n), t]);
    const open = (weights: string, cache: string | null = null, dtype: "bf16" | "f32" = "bf16") =>
      PromptEncoder.open(device(), { weights, tokenizer: TINY_TOKENIZER, cache, dtype });
    const values = (encoder: PromptEncoder, prompts: string[]): Float64Array[] => {
      using _scope = device().scope();
      const y = encoder.encode(prompts);
      expect(y.shape).toEqual([prompts.length, 512, DIM]);
      return prompts.map((_, b) => y.window(b * 512 * DIM, [512, DIM]).values());
    };
    const filesOf = (folder: string): string[] => readdirSync(folder, { recursive: true, encoding: "utf8" });
    const entriesOf = (folder: string): string[] => filesOf(folder).filter((f) => f.endsWith(".safetensors"));

    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), "rcm-encoder-"));
      wan = at("enc.pth");
      writeFileSync(wan, writeTorch(tinyUmt5()));
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    test("Wan's and transformers' names, safetensors, shards and folders give the same", () => {
      const weights = tinyUmt5();
      const names = renamed(weights);
      writeSafetensors(at("wan.safetensors"), weights);
      const tokenizer: HostTensor = { dtype: "u8", shape: [3], data: new Uint8Array(3) };
      writeSafetensors(at("comfy.safetensors"), [...names, ["spiece_model", tokenizer]]);
      writeSafetensors(at("prefixed.safetensors"), renamed(weights, "text_encoder."));
      writeSafetensors(at("s1.safetensors"), [...names.slice(0, 9), ["encoder.embed_tokens.weight", names[0][1]]]);
      writeSafetensors(at("s2.safetensors"), names.slice(9));
      const shards = [...names.map(([n], i) => [n, i < 9 ? "s1.safetensors" : "s2.safetensors"])];
      const map = Object.fromEntries([...shards, ["encoder.embed_tokens.weight", "s1.safetensors"]]);
      writeFileSync(at("model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
      const files = [
        "enc.pth", "wan.safetensors", "comfy.safetensors", "prefixed.safetensors", "model.safetensors.index.json",
      ];
      const [first, ...others] = files.map((name) => {
        using encoder = open(at(name));
        return values(encoder, PROMPTS);
      });
      for (const other of others) expect(other).toEqual(first);
      const { encoder, report } = loadEncoder(device(), at("comfy.safetensors"), { dtype: "bf16" });
      encoder[Symbol.dispose]();
      expect(report).toMatchObject({ layout: "transformers", tensors: weights.size, unexpected: [] });
    }, LONG);

    test("rows past the tokens are zero, rows of tokens are not, and company changes no bit", () => {
      using encoder = open(wan);
      const together = values(encoder, PROMPTS);
      PROMPTS.forEach((prompt, i) => {
        const n = encoder.tokenize(prompt).ids.length;
        const row = (r: number): Float64Array => together[i].subarray(r * DIM, (r + 1) * DIM);
        const rows = Array.from({ length: 512 }, (_, r) => row(r).some((v) => v !== 0));
        expect(rows).toEqual(rows.map((_, r) => r < n));
        expect(values(encoder, [prompt])[0]).toEqual(together[i]);
      });
      expect(values(encoder, ["a  cat jumps\n"])[0]).toEqual(together[0]);
      expect(encoder.counts).toEqual({ encoded: 7, cached: 0 });
    }, LONG);

    test("padding to whole tiles changes nothing beyond rounding", () => {
      using _scope = device().scope();
      const { encoder, report } = loadEncoder(device(), wan, { dtype: "f32" });
      using network = encoder;
      expect(report.layout).toBe("wan");
      const ids = [261, 276, 310, 259, 537, 319, 320, 260, 1];
      const up = (values: number[]) => device().fromValues(values, [1, values.length], "i32");
      const bare = network.forward(up(ids), null).values();
      const lengths = device().fromValues([9], [1], "i32");
      const padded = network.forward(up([...ids, ...Array(7).fill(0)]), lengths).values();
      bare.forEach((v, i) => expect(Math.abs(padded[i] - v)).toBeLessThan(1e-4));
    }, LONG);

    test("cached prompts need no weights, and give the same bits", () => {
      const cache = at("cache");
      const copy = at("moved.pth");
      writeFileSync(copy, readFileSync(wan));
      utimesSync(copy, 1_000_000, 1_000_000);
      let first: Float64Array[];
      {
        using encoder = open(copy, cache);
        first = values(encoder, PROMPTS);
        expect(encoder.counts).toEqual({ encoded: 3, cached: 0 });
      }
      // The same size and time, but nothing that could be read as weights.
      const { size } = statSync(copy);
      writeFileSync(copy, "");
      truncateSync(copy, size);
      utimesSync(copy, 1_000_000, 1_000_000);
      {
        using encoder = open(copy, cache);
        expect(values(encoder, PROMPTS)).toEqual(first);
        expect(encoder.counts).toEqual({ encoded: 0, cached: 3 });
        expect(() => encoder.encode(["a new one"])).toThrow("moved.pth");
      }
      // Other weights, another dtype, another place of the same weights.
      writeFileSync(at("other.pth"), writeTorch(tinyUmt5(4)));
      using other = open(at("other.pth"), cache);
      expect(values(other, PROMPTS)[0]).not.toEqual(first[0]);
      using wide = open(wan, cache, "f32");
      values(wide, PROMPTS);
      using same = open(wan, cache);
      expect(values(same, PROMPTS)).toEqual(first);
      expect([other.counts.encoded, wide.counts.encoded, same.counts.encoded]).toEqual([3, 3, 0]);
    }, LONG);

    test("an entry holds the rows of the tokens alone; a damaged one is made again", () => {
      const cache = at("damaged");
      {
        using encoder = open(wan, cache);
        values(encoder, ["a cat jumps"]);
      }
      const entries = entriesOf(cache);
      expect(entries.length).toBe(1);
      const entry = join(cache, entries[0]);
      const whole = readFileSync(entry);
      expect(whole.length).toBeLessThan(9 * DIM * 2 + 600);
      truncateSync(entry, whole.length - 5);
      using encoder = open(wan, cache);
      values(encoder, ["a cat jumps"]);
      expect(encoder.counts).toEqual({ encoded: 1, cached: 0 });
      expect(Buffer.compare(readFileSync(entry), whole)).toBe(0);
      expect(filesOf(cache).filter((f) => /\.[0-9a-f]{16}$|tmp/.test(f))).toEqual([]);
    }, LONG);

    test("disposing frees the weights", () => {
      const before = device().memory().current;
      const encoder = open(wan);
      values(encoder, ["a cat jumps"]);
      const held = device().memory().current - before;
      expect(held).toBeGreaterThanOrEqual(umt5Params(TINY_UMT5).reduce((n, s) => n + 2 * numel(s.shape), 0));
      encoder[Symbol.dispose]();
      expect(device().memory().current).toBe(before);
    }, LONG);

    test("files that do not fit are named", () => {
      const weights = tinyUmt5();
      const save = (name: string, change: (w: Map<string, HostTensor>) => void): string => {
        const w = new Map(weights);
        change(w);
        writeSafetensors(at(name), w);
        return at(name);
      };
      const run = (path: string) => () => {
        using encoder = open(path);
        encoder.encode(["a"]);
      };
      const before = device().memory().current;
      const less = save("less.safetensors", (w) => w.delete("blocks.1.attn.o.weight"));
      expect(run(less)).toThrow("lacks blocks.1.attn.o.weight");
      const shape = save("shape.safetensors", (w) =>
        w.set("blocks.1.attn.o.weight", hostTensor("f32", [2, 2], [0, 0, 0, 0])),
      );
      expect(run(shape)).toThrow("blocks.1.attn.o.weight has the wrong shape");
      const dit = save("dit.safetensors", (w) => w.delete("token_embedding.weight"));
      expect(run(dit)).toThrow("neither Wan's nor transformers' names");
      const hundred = hostTensor("f32", [100, DIM], new Float64Array(100 * DIM));
      const small = save("small.safetensors", (w) => w.set("token_embedding.weight", hundred));
      expect(run(small)).toThrow("has more pieces than the encoder");
      const nans = hostTensor("f32", [DIM], new Float64Array(DIM).fill(Number.NaN));
      const nan = save("nan.safetensors", (w) => w.set("norm.weight", nans));
      expect(run(nan)).toThrow("not finite");
      using encoder = open(nan, at("nan-cache"));
      expect(() => encoder.encode(["a"])).toThrow("not finite");
      expect(entriesOf(at("nan-cache"))).toEqual([]);
      encoder.release();
      expect(device().memory().current).toBe(before);
      renameSync(nan, at("gone.safetensors"));
      expect(existsSync(nan)).toBe(false);
      expect(run(nan)).toThrow("does not exist");
    }, LONG);
  });
});
