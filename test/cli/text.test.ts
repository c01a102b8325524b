import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostValues } from "../../core/dtype.ts";
import { readTorchTensor, writeTorch } from "../../core/io/torch.ts";
import { TINY_TOKENIZER, tinyUmt5 } from "../harness/tiny_umt5.ts";

/** For a busy machine: every command is a process of its own. */
const LONG = 60_000;
const MAIN = join(import.meta.dir, "../../cli/main.ts");
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "rcm-cli-text-"));
  writeFileSync(join(folder, "enc.pth"), writeTorch(tinyUmt5()));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function rcm(...args: string[]): { status: number; out: string; err: string } {
  const r = Bun.spawnSync([process.execPath, MAIN, "text", ...args], {
    cwd: folder,
    env: { ...process.env, NO_COLOR: "1" },
  });
  return { status: r.exitCode, out: r.stdout.toString(), err: r.stderr.toString() };
}
const encode = (...args: string[]) =>
  rcm("encode", "--weights", "enc.pth", "--tokenizer", TINY_TOKENIZER, "--device", "cpu", ...args);

describe("rcm text", () => {
  test("tokenize shows ids and pieces of the cleaned prompt", () => {
    const r = rcm(
      "tokenize", "--tokenizer", TINY_TOKENIZER, "--prompt", "  a cat &amp;\n jumps", "--prompt", "x", "--json",
      "--length", "5",
    );
    expect(r.status).toBe(0);
    const { prompts, size } = JSON.parse(r.out);
    expect(size).toBe(560);
    expect(prompts[0]).toMatchObject({
      clean: "a cat & jumps", truncated: true, ids: [261, 276, 310, 259, 1],
      pieces: ["\u2581a", "\u2581c", "at", "\u2581", "</s>"],
    });
    expect(rcm("tokenize", "--tokenizer", TINY_TOKENIZER, "--prompt", "a").out).toBe("2 tokens: \u2581a:261 </s>:1\n");
  }, LONG);

  test("encode writes the public data's file for one prompt", () => {
    const r = encode("--prompt", "a cat jumps", "--out", "cat.embed.pt", "--quiet", "--cache", "cache");
    expect([r.status, r.err]).toEqual([0, ""]);
    const t = readTorchTensor(join(folder, "cat.embed.pt"));
    expect([t.dtype, ...t.shape]).toEqual(["bf16", 512, 32]);
    const rows = hostValues(t);
    expect(rows.subarray(0, 9 * 32).every((v) => v === 0)).toBe(false);
    expect(rows.subarray(9 * 32).every((v) => v === 0)).toBe(true);
    const again = encode("--prompt", "a cat jumps", "--out", "again.pt", "--json", "--cache", "cache");
    expect(JSON.parse(again.out)).toMatchObject({
      encoded: 0, cached: 1, load: null, shape: [512, 32], files: [{ tokens: 9, truncated: false }],
    });
    expect(readFileSync(join(folder, "again.pt")).equals(readFileSync(join(folder, "cat.embed.pt")))).toBe(true);
  }, LONG);

  test("a folder gets a pair of files a prompt, and the negative prompt under its public name", () => {
    writeFileSync(join(folder, "list.txt"), "a red kite\n\na brown dog\n");
    const r = encode(
      "--prompts", "list.txt", "--prompt", "rain", "--negative", "blurred", "--out", "embeds", "--json", "--dtype",
      "f32", "--length", "64",
    );
    expect(r.status).toBe(0);
    expect(readdirSync(join(folder, "embeds")).sort()).toEqual([
      "000000.embed.pt", "000000.prompt.txt", "000001.embed.pt", "000001.prompt.txt", "000002.embed.pt",
      "000002.prompt.txt", "umT5_wan_negative_emb.pt",
    ]);
    expect(readFileSync(join(folder, "embeds/000001.prompt.txt"), "utf8")).toBe("a red kite");
    expect(readTorchTensor(join(folder, "embeds/umT5_wan_negative_emb.pt"))).toMatchObject({
      dtype: "f32",
      shape: [64, 32],
    });
  }, LONG);

  test("a prompt that is too long is cut with a warning, and the result says so", () => {
    const long = "rain ".repeat(30).trim();
    const r = encode("--prompt", long, "--prompt", "rain", "--out", "cut", "--json", "--length", "16");
    expect([r.status, r.err.includes("is cut to 16")]).toEqual([0, true]);
    const { files, truncated } = JSON.parse(r.out);
    expect(files.map((f: { truncated: boolean }) => f.truncated)).toEqual([true, false]);
    expect(truncated).toEqual([{ prompt: long, tokens: expect.any(Number), kept: 16 }]);
    expect(truncated[0].tokens).toBeGreaterThan(30);
  }, LONG);

  test("wrong usage and files: exit status and one message", () => {
    writeFileSync(join(folder, "latin1.txt"), Buffer.from("caf\xe9\n", "latin1"));
    for (const [status, message, args] of [
      [2, "no prompt", ["--out", "x.pt"]],
      [2, "takes one prompt", ["--prompt", "a", "--prompt", "b", "--out", "x.pt"]],
      [2, "allowed bf16, f16, f32", ["--prompt", "a", "--out", "x.pt", "--dtype", "f8"]],
      [2, "unknown flag --promt", ["--promt", "a", "--out", "x.pt"]],
      [3, "cannot read absent.txt", ["--prompts", "absent.txt", "--out", "x.pt"]],
      [3, "is not UTF-8 (line 1, byte 4)", ["--prompts", "latin1.txt", "--out", "x.pt"]],
    ] as const) {
      const r = encode(...args);
      expect([r.status, r.err.includes(message), r.out]).toEqual([status, true, ""]);
    }
    const r = rcm(
      "encode", "--weights", "absent.pth", "--tokenizer", TINY_TOKENIZER, "--device", "cpu", "--prompt", "a", "--out",
      "x.pt",
    );
    expect([r.status, r.err.includes("absent.pth")]).toEqual([3, true]);
    expect(existsSync(join(folder, "x.pt"))).toBe(false);
  }, LONG);
});
