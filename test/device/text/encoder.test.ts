import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { truncateSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, numel, type HostTensor } from "../../../core/dtype.ts";
import { writeSafetensors } from "../../../core/io/safetensors.ts";
import { writeTorch } from "../../../core/io/torch.ts";
import { umt5KeyIn, umt5Params } from "../../../core/models/umt5/keys.ts";
import { CachedEmbedder } from "../../../core/text/cache.ts";
import { textBatch } from "../../../core/text/embedder.ts";
import { openEncoder } from "../../../core/text/open.ts";
import { loadEncoder } from "../../../core/weights/encoder.ts";
import { onEachDevice } from "../../harness/device.ts";
import { TINY_TOKENIZER, TINY_UMT5, tinyUmt5 } from "../../harness/tiny_umt5.ts";

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
      openEncoder(device(), { weights, tokenizer: TINY_TOKENIZER, cache }, { length: 512, dtype });
    const network = (e: ReturnType<typeof open>) => (e instanceof CachedEmbedder ? e.inner : e);
    const values = async (encoder: ReturnType<typeof open>, prompts: string[]): Promise<Float64Array[]> => {
      const texts = await encoder.embed(prompts);
      using _scope = device().scope();
      const y = textBatch(device(), texts, { width: DIM, length: 512 });
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

    test(
      "Wan's and transformers' names, safetensors, shards and folders give the same",
      async () => {
        const weights = tinyUmt5();
        const names = renamed(weights);
        writeSafetensors(at("wan.safetensors"), weights);
        const tokenizer: HostTensor = { dtype: "u8", shape: [3], data: new Uint8Array(3) };
        writeSafetensors(at("comfy.safetensors"), [...names, ["spiece_model", tokenizer]]);
        writeSafetensors(at("prefixed.safetensors"), renamed(weights, "text_encoder."));
        writeSafetensors(at("s1.safetensors"), [...names.slice(0, 9), ["encoder.embed_tokens.weight", names[0][1]]]);
        writeSafetensors(at("s2.safetensors"), names.slice(9));
        writeFileSync(
          at("model.safetensors.index.json"),
          JSON.stringify({
            weight_map: Object.fromEntries([
              ...names.map(([n], i) => [n, i < 9 ? "s1.safetensors" : "s2.safetensors"]),
              ["encoder.embed_tokens.weight", "s1.safetensors"],
            ]),
          }),
        );
        const [first, ...others] = await Promise.all(
          [
            "enc.pth",
            "wan.safetensors",
            "comfy.safetensors",
            "prefixed.safetensors",
            "model.safetensors.index.json",
          ].map(async (name) => {
            using encoder = open(at(name));
            return await values(encoder, PROMPTS);
          }),
        );
        for (const other of others) expect(other).toEqual(first);
        const { encoder, report } = loadEncoder(device(), at("comfy.safetensors"), { dtype: "bf16" });
        encoder[Symbol.dispose]();
        expect(report).toMatchObject({ layout: "transformers", tensors: weights.size, unexpected: [] });
      },
      LONG,
    );

    test(
      "rows past the tokens are zero, rows of tokens are not, and company changes no bit",
      async () => {
        using encoder = open(wan);
        const together = await values(encoder, PROMPTS);
        for (const [i, prompt] of PROMPTS.entries()) {
          const n = network(encoder).tokenize(prompt).ids.length;
          const rows = Array.from({ length: 512 }, (_, r) =>
            together[i].subarray(r * DIM, (r + 1) * DIM).some((v) => v !== 0),
          );
          expect(rows).toEqual(rows.map((_, r) => r < n));
          expect((await values(encoder, [prompt]))[0]).toEqual(together[i]);
        }
        expect((await values(encoder, ["a  cat jumps\n"]))[0]).toEqual(together[0]);
        expect(encoder.counts).toEqual({ encoded: 7, cached: 0 });
      },
      LONG,
    );

    test(
      "padding to whole tiles changes nothing beyond rounding",
      () => {
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
      },
      LONG,
    );

    test(
      "cached prompts need no weights, and give the same bits",
      async () => {
        const cache = at("cache");
        const copy = at("moved.pth");
        writeFileSync(copy, readFileSync(wan));
        utimesSync(copy, 1_000_000, 1_000_000);
        let first: Float64Array[];
        {
          using encoder = open(copy, cache);
          first = await values(encoder, PROMPTS);
          expect(encoder.counts).toEqual({ encoded: 3, cached: 0 });
        }
        // The same size and time, but nothing that could be read as weights.
        const { size } = statSync(copy);
        writeFileSync(copy, "");
        truncateSync(copy, size);
        utimesSync(copy, 1_000_000, 1_000_000);
        {
          using encoder = open(copy, cache);
          expect(await values(encoder, PROMPTS)).toEqual(first);
          expect(encoder.counts).toEqual({ encoded: 0, cached: 3 });
          await expect(encoder.embed(["a new one"])).rejects.toThrow("moved.pth");
        }
        // Other weights, another dtype, another place of the same weights.
        writeFileSync(at("other.pth"), writeTorch(tinyUmt5(4)));
        using other = open(at("other.pth"), cache);
        expect((await values(other, PROMPTS))[0]).not.toEqual(first[0]);
        using wide = open(wan, cache, "f32");
        await values(wide, PROMPTS);
        using same = open(wan, cache);
        expect(await values(same, PROMPTS)).toEqual(first);
        expect([other, wide, same].map((e) => e.counts.encoded)).toEqual([3, 3, 0]);
      },
      LONG,
    );

    test(
      "an entry holds the rows of the tokens alone; a damaged one is made again",
      async () => {
        const cache = at("damaged");
        {
          using encoder = open(wan, cache);
          await values(encoder, ["a cat jumps"]);
        }
        const entries = entriesOf(cache);
        expect(entries.length).toBe(1);
        const entry = join(cache, entries[0]);
        const whole = readFileSync(entry);
        expect(whole.length).toBeLessThan(9 * DIM * 2 + 600);
        truncateSync(entry, whole.length - 5);
        using encoder = open(wan, cache);
        await values(encoder, ["a cat jumps"]);
        expect(encoder.counts).toEqual({ encoded: 1, cached: 0 });
        expect(Buffer.compare(readFileSync(entry), whole)).toBe(0);
        expect(filesOf(cache).filter((f) => /\.[0-9a-f]{16}$|tmp/.test(f))).toEqual([]);
      },
      LONG,
    );

    test(
      "disposing frees the weights",
      async () => {
        const before = device().memory().current;
        const encoder = open(wan);
        await values(encoder, ["a cat jumps"]);
        const held = device().memory().current - before;
        expect(held).toBeGreaterThanOrEqual(umt5Params(TINY_UMT5).reduce((n, s) => n + 2 * numel(s.shape), 0));
        encoder[Symbol.dispose]();
        expect(device().memory().current).toBe(before);
      },
      LONG,
    );

    test(
      "files that do not fit are named",
      async () => {
        const weights = tinyUmt5();
        const save = (name: string, change: (w: Map<string, HostTensor>) => void): string => {
          const w = new Map(weights);
          change(w);
          writeSafetensors(at(name), w);
          return at(name);
        };
        const run = async (path: string): Promise<void> => {
          using encoder = open(path);
          await encoder.embed(["a"]);
        };
        const before = device().memory().current;
        await expect(run(save("less.safetensors", (w) => w.delete("blocks.1.attn.o.weight")))).rejects.toThrow(
          "lacks blocks.1.attn.o.weight",
        );
        await expect(
          run(
            save("shape.safetensors", (w) => w.set("blocks.1.attn.o.weight", hostTensor("f32", [2, 2], [0, 0, 0, 0]))),
          ),
        ).rejects.toThrow("blocks.1.attn.o.weight has the wrong shape");
        await expect(run(save("dit.safetensors", (w) => w.delete("token_embedding.weight")))).rejects.toThrow(
          "the names are of no public layout",
        );
        await expect(
          run(
            save("small.safetensors", (w) =>
              w.set("token_embedding.weight", hostTensor("f32", [100, DIM], new Float64Array(100 * DIM))),
            ),
          ),
        ).rejects.toThrow("has more pieces than the encoder");
        const nan = save("nan.safetensors", (w) =>
          w.set("norm.weight", hostTensor("f32", [DIM], new Float64Array(DIM).fill(Number.NaN))),
        );
        await expect(run(nan)).rejects.toThrow("not finite");
        using encoder = open(nan, at("nan-cache"));
        await expect(encoder.embed(["a"])).rejects.toThrow("not finite");
        expect(
          readdirSync(at("nan-cache"), { recursive: true, encoding: "utf8" }).filter((f) => f.endsWith(".safetensors")),
        ).toEqual([]);
        encoder[Symbol.dispose]();
        expect(device().memory().current).toBe(before);
        renameSync(nan, at("gone.safetensors"));
        expect(existsSync(nan)).toBe(false);
        await expect(run(nan)).rejects.toThrow("does not exist");
      },
      LONG,
    );
  });
});
