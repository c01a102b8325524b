import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeTorch } from "../../../core/io/torch.ts";
import { TINY_TOKENIZER, tinyUmt5 } from "../../harness/tiny_umt5.ts";

test("processes that share a cache leave one whole entry a prompt", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rcm-shared-"));
  try {
    writeFileSync(join(folder, "enc.pth"), writeTorch(tinyUmt5()));
    const main = join(import.meta.dir, "../../../cli/main.ts");
    const runs = [0, 1, 2].map((i) =>
      Bun.spawn(
        [
          process.execPath, main, "text", "encode", "--weights", join(folder, "enc.pth"), "--tokenizer",
          TINY_TOKENIZER, "--cache", join(folder, "cache"), "--device", "cpu", "--threads", "1", "--json", "--out",
          join(folder, `out${i}`), ...["a cat", "a dog runs", "rain"].flatMap((p) => ["--prompt", p]),
        ],
        { stdout: "pipe", stderr: "pipe" },
      ),
    );
    const texts = await Promise.all(runs.map((r) => new Response(r.stdout).text()));
    expect(await Promise.all(runs.map((r) => r.exited))).toEqual([0, 0, 0]);
    for (const text of texts) {
      const s = JSON.parse(text);
      expect([s.files.length, s.encoded + s.cached, s.shape]).toEqual([3, 3, [512, 32]]);
    }
    const files = readdirSync(join(folder, "cache"), { recursive: true, encoding: "utf8" });
    expect(files.filter((f) => f.endsWith(".safetensors")).length).toBe(3);
    expect(files.filter((f) => /weights-[0-9a-f]{32}\.txt$/.test(f)).length).toBe(1);
    expect(files.filter((f) => /tmp|\.[0-9a-f]{16}$/.test(f))).toEqual([]);
    expect(readdirSync(join(folder, "out0")).sort()).toEqual(readdirSync(join(folder, "out2")).sort());
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 60_000);
