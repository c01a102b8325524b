import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { keyOf, nameOf } from "../../harness/wan_net.ts";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, type HostTensor } from "../../../core/dtype.ts";
import { RcmError } from "../../../core/error.ts";
import { openCheckpoint, readHost, readStored } from "../../../core/io/checkpoint.ts";
import { writeSafetensors } from "../../../core/io/safetensors.ts";
import { writeTorch } from "../../../core/io/torch.ts";
import type { LoadOptions } from "../../../core/weights/fit.ts";
import { networkIn, specOf } from "../../../core/weights/resolve.ts";
import { inspectWeights } from "../../../core/weights/inspect.ts";
import { cpu } from "../../harness/device.ts";
import { legacyFile, writeDcp, writeDiffusers } from "../../harness/formats.ts";
import { writeText, writeVae } from "../../harness/tiny_files.ts";
import {
  both, config, original, outputError as outputErrorOn, published, under,
} from "../../harness/golden_formats.ts";

let dir = "";
beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "rcm-weights-"))));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (...names: string[]): string => join(dir, ...names);
const outputError = (path: string, o: LoadOptions = {}) => outputErrorOn(cpu(), path, o);

const failure = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (!(error instanceof RcmError)) throw error;
    return `${error.code} ${error.message}`;
  }
  return "no error";
};

describe("names", () => {
  test("every parameter keeps its identity through every layout, and norm2 and norm3 change places", () => {
    for (const layout of ["original", "diffusers", "comfyui"] as const) {
      for (const key of original.keys()) expect(nameOf(layout, "p.", keyOf(layout, "p.", key))).toBe(key);
    }
    expect(keyOf("diffusers", "", "blocks.7.norm3.weight")).toBe("blocks.7.norm2.weight");
    expect(keyOf("diffusers", "", "head.modulation")).toBe("scale_shift_table");
    expect(keyOf("diffusers", "", "blocks.0.cross_attn.o.bias")).toBe("blocks.0.attn2.to_out.0.bias");
    expect(new Set([...original.keys()].map((k) => keyOf("diffusers", "", k))).size).toBe(original.size);
    expect(nameOf("original", "net.", "vae.x")).toBeNull();
  });

  test("the configuration comes from shapes, and heads from a config.json", () => {
    writeDiffusers(at("cfg"), published, {
      num_attention_heads: config.heads, patch_size: config.patch, text_len: config.textLen,
    });
    expect(specOf(networkIn(openCheckpoint(at("cfg")))).config).toEqual(config);
  });

  test("what does not fit is refused by name, and loaded in part when asked", () => {
    const lame = new Map(published);
    lame.delete("blocks.1.ffn.2.bias");
    lame.set("blocks.0.self_attn.q.bias", hostTensor("f32", [3], [1, 2, 3]));
    lame.set("blocks.0.self_attn.k.bias", hostTensor("i64", [config.dim], new Array(config.dim).fill(1)));
    lame.set("surplus.weight", hostTensor("f32", [1], [1]));
    writeSafetensors(at("lame.safetensors"), lame);
    const text = failure(() => outputError(at("lame.safetensors")));
    for (const part of [
      "E_FORMAT", "lame.safetensors", "1 missing (blocks.1.ffn.2.bias)", "1 unexpected (surplus.weight)",
      "blocks.0.self_attn.q.bias want [", "got f32 [3]", "got i64 [",
    ])
      expect(text).toContain(part);
    let told = "";
    const { report } = outputError(at("lame.safetensors"), { allowPartial: true, onPartial: (t) => (told = t) });
    expect(report).toMatchObject({
      missing: ["blocks.1.ffn.2.bias"], unexpected: ["surplus.weight"], loaded: original.size - 3,
    });
    expect(told).toContain("surplus.weight");
    expect(inspectWeights(at("lame.safetensors"))).toMatchObject({
      config: null,
      problem: expect.stringContaining("how large"),
    });
    mkdirSync(at("lame"));
    writeFileSync(at("lame", "config.json"), JSON.stringify({ num_heads: config.heads }));
    cpSync(at("lame.safetensors"), at("lame", "w.safetensors"));
    const seen = inspectWeights(at("lame"));
    expect(seen).toMatchObject({ format: "safetensors", layout: "original", tensors: published.size });
    expect(seen.fit?.missing).toEqual(["blocks.1.ffn.2.bias"]);
  });

  test("a text encoder and an autoencoder are known, and what they lack", () => {
    const { weights } = writeText(at());
    writeVae(at("vae.safetensors"));
    expect(inspectWeights(weights)).toMatchObject({
      companion: { kind: "umT5", size: expect.stringContaining("2 layers") },
      config: null,
      problem: null,
    });
    expect(inspectWeights(at("vae.safetensors"))).toMatchObject({ companion: { kind: "Wan VAE" }, problem: null });
    for (const [file, key] of [[weights, "blocks.1.ffn.fc2.weight"], [at("vae.safetensors"), "decoder.head.2.bias"]]) {
      const tensors = new Map(
        [...openCheckpoint(file).tensors].filter(([name]) => name !== key).map(([name, t]) => [name, readHost(t)]),
      );
      expect(tensors.size).toBe(openCheckpoint(file).tensors.size - 1);
      writeSafetensors(at("part.safetensors"), tensors);
      expect(inspectWeights(at("part.safetensors"))).toMatchObject({
        companion: null,
        problem: expect.stringContaining(key),
      });
    }
  });

  test("no network, several networks, nothing there", () => {
    writeSafetensors(at("none.safetensors"), [["a", hostTensor("f32", [1], [1])]]);
    expect(failure(() => outputError(at("none.safetensors")))).toMatch(/E_FORMAT .*no Wan network/);
    writeSafetensors(at("two.safetensors"), both(under("left.", published), under("right.", published)));
    expect(failure(() => outputError(at("two.safetensors")))).toMatch(/E_FORMAT .*several networks.*left.*right/);
    expect(failure(() => outputError(at("missing")))).toContain("E_IO");
    mkdirSync(at("empty"));
    expect(failure(() => outputError(at("empty")))).toMatch(/E_FORMAT .*holds no weights/);
  });
});

describe("damaged checkpoints are refused with their path", () => {
  const stored = (path: string): HostTensor[] => [...openCheckpoint(path).tensors.values()].map(readHost);

  test("shard indexes", () => {
    const broken = (name: string, change: (index: { weight_map: Record<string, string> }) => unknown): string => {
      writeDiffusers(at(name), published, {});
      const file = at(name, "diffusion_pytorch_model.safetensors.index.json");
      const index = JSON.parse(readFileSync(file, "utf8"));
      writeFileSync(file, JSON.stringify(change(index) ?? index));
      return failure(() => stored(at(name)));
    };
    expect(broken("i1", (i) => void (i.weight_map["proj_out.weight"] = "../secret.safetensors"))).toMatch(
      /E_FORMAT .*outside its folder/,
    );
    expect(broken("i2", (i) => void (i.weight_map.ghost = Object.values(i.weight_map)[0]))).toMatch(
      /E_FORMAT .*lacks ghost/,
    );
    expect(broken("i3", () => [])).toMatch(/E_FORMAT .*no weight_map/);
    expect(broken("i4", () => ({ weight_map: {} }))).toMatch(/E_FORMAT .*no shards/);
    expect(broken("i5", (i) => void (i.weight_map.x = "gone.safetensors"))).toMatch(/E_IO .*gone\.safetensors/);
  });

  test("cut files", () => {
    for (const [name, bytes] of [["cut.pth", writeTorch(published)], ["cutl.pth", legacyFile(published)]] as const) {
      writeFileSync(at(name), bytes.subarray(0, bytes.length - 40));
      expect(failure(() => stored(at(name)))).toMatch(/E_FORMAT .*cut/);
    }
    writeSafetensors(at("whole.safetensors"), published);
    const whole = readFileSync(at("whole.safetensors"));
    writeFileSync(at("cut.safetensors"), whole.subarray(0, whole.length - 8));
    expect(failure(() => stored(at("cut.safetensors")))).toMatch(/E_FORMAT .*outside the file/);
    const opened = openCheckpoint(at("whole.safetensors"));
    writeFileSync(at("whole.safetensors"), whole.subarray(0, 4096));
    for (const t of opened.tensors.values())
      expect(failure(() => readHost(t))).toMatch(/no error|E_IO .*whole\.safetensors/);
    using _scope = cpu().scope();
    for (const t of opened.tensors.values())
      expect(failure(() => readStored(t, cpu().empty(t.shape, "f32")))).toMatch(
        /no error|E_IO .*ends at byte 4096.*whole\.safetensors/,
      );
    rmSync(at("whole.safetensors"));
    const [t] = opened.tensors.values();
    expect(failure(() => readStored(t, cpu().empty(t.shape, "f32")))).toMatch(/E_IO .*cannot open.*whole\.safetensors/);
    expect(failure(() => readStored({ ...t, file: dir }, cpu().empty(t.shape, "f32")))).toMatch(
      /E_IO .*not a regular file/,
    );
    expect(failure(() => readStored({ ...t, file: "a\0b" }, cpu().empty(t.shape, "f32")))).toContain("E_ARG");
  });

  test("a flipped bit: found by the checksum when asked", () => {
    writeFileSync(at("flip.pth"), writeTorch(published));
    const bytes = readFileSync(at("flip.pth"));
    bytes[bytes.length >> 1] ^= 1;
    writeFileSync(at("flip.pth"), bytes);
    expect(failure(() => inspectWeights(at("flip.pth")))).toBe("no error");
    expect(failure(() => inspectWeights(at("flip.pth"), "ema", { verify: true }))).toMatch(
      /E_FORMAT .*data\/\d+ is damaged/,
    );
    writeDcp(at("flip"), published, { ranks: 2 });
    expect(failure(() => inspectWeights(at("flip"), "ema", { verify: true }))).toBe("no error");
    const part = readFileSync(at("flip", "__1_0.distcp"));
    part[part.length >> 1] ^= 1;
    writeFileSync(at("flip", "__1_0.distcp"), part);
    expect(failure(() => inspectWeights(at("flip"), "ema", { verify: true }))).toMatch(/E_FORMAT .*__1_0\.distcp/);
  });

  test("a training folder's newest step", () => {
    writeDcp(at("job", "checkpoints", "iter_000000500", "model"), under("net.", published), { ranks: 1 });
    writeFileSync(at("job", "checkpoints", "latest_checkpoint.txt"), "iter_000000500\n");
    expect(openCheckpoint(at("job")).path).toBe(at("job", "checkpoints", "iter_000000500", "model"));
    writeFileSync(at("job", "checkpoints", "latest_checkpoint.txt"), "../../etc");
    expect(failure(() => openCheckpoint(at("job")))).toMatch(/E_FORMAT .*names no folder/);
  });

  test("distributed checkpoints", () => {
    writeDcp(at("dcp"), published, { ranks: 2 });
    const metadata = readFileSync(at("dcp", ".metadata"));
    const swap = (name: string, from: string, to: string): string => {
      cpSync(at("dcp"), at(name), { recursive: true });
      const text = metadata.toString("latin1");
      expect(text).toContain(from);
      writeFileSync(at(name, ".metadata"), Buffer.from(text.replace(from, to), "latin1"));
      return failure(() => stored(at(name)));
    };
    expect(failure(() => stored(at("dcp")))).toBe("no error");
    expect(swap("d1", "__1_0.distcp", "../_0.distcp")).toMatch(/E_FORMAT .*outside its folder/);
    expect(swap("d2", "__1_0.distcp", "__9_0.distcp")).toMatch(/E_IO .*__9_0\.distcp/);
    expect(swap("d3", "float32", "int8\nxx")).toMatch(/E_FORMAT/);
    expect(swap("d4", "TensorProperties", "TensorPropertiez")).toMatch(/no error|E_FORMAT/);
    expect(swap("d5", "torch.distributed.checkpoint.filesystem", "torch.distributed.checkpoint.filesystex")).toMatch(
      /E_FORMAT .*refused/,
    );
    writeFileSync(at("dcp", "__0_0.distcp"), new Uint8Array(100));
    expect(failure(() => stored(at("dcp")))).toMatch(/E_FORMAT .*__0_0\.distcp/);
  });
});
