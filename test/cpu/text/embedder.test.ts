import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostValues, numel } from "../../../core/dtype.ts";
import { writeTorch } from "../../../core/io/torch.ts";
import { CachedEmbedder } from "../../../core/text/cache.ts";
import { padded, textBatch, type Embedder, type Truncated } from "../../../core/text/embedder.ts";
import { NetworkEmbedder } from "../../../core/text/encoder.ts";
import { openEmbedder } from "../../../core/text/open.ts";
import { StoredEmbedder } from "../../../core/text/stored.ts";
import { ByteEmbedder, encodeBytes } from "../../../core/text/tokenizers/bytes.ts";
import { cpu } from "../../harness/device.ts";
import { TINY_TOKENIZER, tinyUmt5 } from "../../harness/tiny_umt5.ts";

const PROMPTS = ["a cat jumps", "", "a brown dog", "a cat jumps"];
const SHAPE = { width: 32, length: 24 };
let folder = "";
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "rcm-embedder-"));
  writeFileSync(at("enc.pth"), writeTorch(tinyUmt5()));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const network = (cache: string | null, onTruncated?: (t: Truncated) => void): Embedder =>
  openEmbedder(cpu(), {
    shape: SHAPE,
    encoder: { weights: at("enc.pth"), tokenizer: TINY_TOKENIZER, cache },
    onTruncated,
  });

/** The embeddings of an embedder in files of every kind, opened again. */
async function storedCopies(embedder: Embedder, name: string): Promise<Embedder[]> {
  const texts = (await embedder.embed(PROMPTS)).map((text) => padded(text, SHAPE.length));
  const data = Buffer.concat(texts.map((t) => t.data));
  const shape = [texts.length, SHAPE.length, SHAPE.width];
  writeFileSync(at(`${name}.pt`), writeTorch({ dtype: texts[0].dtype, shape, data }));
  const dir = mkdtempSync(at(name));
  texts.forEach((text, i) => writeFileSync(join(dir, `${String(i).padStart(9, "0")}.embed.pt`), writeTorch(text)));
  return [at(`${name}.pt`), dir].map((stored) => openEmbedder(cpu(), { shape: SHAPE, stored, prompts: PROMPTS }));
}

const values = async (embedder: Embedder): Promise<Float64Array> => {
  const texts = await embedder.embed(PROMPTS);
  for (const { shape } of texts) expect(shape[0]).toBeLessThan(SHAPE.length);
  using _scope = cpu().scope();
  const y = textBatch(cpu(), texts, embedder);
  expect(y.shape).toEqual([PROMPTS.length, SHAPE.length, SHAPE.width]);
  return y.values();
};

test("network, cached and stored embeddings give the same padded batch", async () => {
  using plain = network(null);
  using filling = network(at("cache"));
  using cached = network(at("cache"));
  const want = await values(plain);
  expect(want.some((v) => v !== 0)).toBe(true);
  for (const embedder of [filling, cached, ...(await storedCopies(plain, "network"))]) {
    expect(await values(embedder)).toEqual(want);
  }
  expect([plain, filling].map((e) => e.constructor)).toEqual([NetworkEmbedder, CachedEmbedder]);
  expect((cached as CachedEmbedder).counts).toEqual({ encoded: 0, cached: 3 });
  expect(filling.identity).toBe(plain.identity);
});

test("bytes and their stored embeddings give the padded batch of the byte-level encoder", async () => {
  const bytes = openEmbedder(cpu(), { shape: SHAPE, bytes: true });
  expect(bytes).toBeInstanceOf(ByteEmbedder);
  const want = Float64Array.from(PROMPTS.flatMap((p) => [...hostValues(encodeBytes(p, SHAPE.length, SHAPE.width))]));
  for (const embedder of [bytes, ...(await storedCopies(bytes, "bytes"))]) expect(await values(embedder)).toEqual(want);
});

test("an identity follows the content, not the name", async () => {
  const [file, dir] = await storedCopies(openEmbedder(cpu(), { shape: SHAPE, bytes: true }), "kept");
  writeFileSync(at("copy.pt"), readFileSync(at("kept.pt")));
  const copy = openEmbedder(cpu(), { shape: SHAPE, stored: at("copy.pt") });
  expect(copy.identity).toBe(file.identity);
  expect((copy as StoredEmbedder).prompts).toEqual(["copy.pt#0", "copy.pt#1", "copy.pt#2", "copy.pt#3"]);
  expect(dir.identity).not.toBe(file.identity);
});

test("what is too long is cut and reported once, from the cache as well", async () => {
  const long = "word ".repeat(40);
  for (let run = 0; run < 2; run++) {
    const cut: Truncated[] = [];
    using embedder = network(at("cut"), (t) => cut.push(t));
    const [text] = await embedder.embed([long, "short", long]);
    expect(text.shape).toEqual([SHAPE.length, SHAPE.width]);
    expect(cut.map((t) => [t.prompt, t.kept, t.tokens > 40])).toEqual([[long, SHAPE.length, true]]);
  }
  const cut: Truncated[] = [];
  const [bytes] = await new ByteEmbedder({ width: 8, length: 5 }, (t) => cut.push(t)).embed(["ééé"]);
  expect(cut).toEqual([{ prompt: "ééé", tokens: 6, kept: 4 }]);
  expect(hostValues(bytes)).toEqual(hostValues(encodeBytes("éé", 5, 8)).subarray(0, numel(bytes.shape)));
});

test("without files there is no encoder for a network of real text", () => {
  expect(() => openEmbedder(cpu(), { shape: SHAPE })).toThrow(expect.objectContaining({ code: "E_ARG" }));
});
