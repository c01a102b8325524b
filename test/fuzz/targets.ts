import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateSync, inflateSync } from "node:zlib";
import { hostTensor, isFloat, numel, type HostTensor } from "../../core/dtype.ts";
import { openCheckpoint, readHost, readStored } from "../../core/io/checkpoint.ts";
import { encodePng } from "../../core/io/png.ts";
import { decodePng } from "../../core/io/png_read.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import { writeTar } from "../../core/io/tar.ts";
import { readTar, writeZip } from "../harness/archives.ts";
import { readTorchTensors, writeTorch } from "../../core/io/torch.ts";
import { readZip } from "../../core/io/zip_read.ts";
import { readShard, writeShards } from "../../core/io/webdataset.ts";
import { loadRecipe } from "../../core/recipe/load.ts";
import type { Rng } from "../../core/rng.ts";
import { parseSentencePiece, unigramJson } from "../../core/text/tokenizers/sentencepiece.ts";
import { readEmbeddings } from "../../core/text/stored.ts";
import { inspectWeights } from "../../core/weights/inspect.ts";
import { cpu } from "../harness/device.ts";
import { legacyFile, writeDcp, writeDiffusers } from "../harness/formats.ts";
import * as m from "./mutate.ts";

/** Files of one input, by name relative to its folder. */
export type Input = Map<string, Uint8Array>;

export interface Target {
  name: string;
  /** An undamaged input. */
  valid: Input;
  /** Makes a damaged input from the valid ones. */
  make: (rng: Rng) => Input;
  /** Reads it as the program does; returns or throws RcmError. */
  run: (folder: string) => void;
}

const text = (s: string): Uint8Array => new TextEncoder().encode(s);
const one = (name: string, data: Uint8Array): Input => new Map([[name, data]]);
const values = (shape: number[], dtype: HostTensor["dtype"] = "f32"): HostTensor =>
  hostTensor(
    dtype,
    shape,
    Array.from({ length: numel(shape) }, (_, i) => i % 7),
  );

/** Enough of a Wan network for its layout and sizes to be recognised. */
const STATE = new Map<string, HostTensor>([
  ["patch_embedding.weight", values([128, 1, 1, 2, 2], "bf16")],
  ["text_embedding.0.weight", values([4, 8])],
  ["time_embedding.0.weight", values([4, 6])],
  ["blocks.0.self_attn.q.weight", values([128, 1], "bf16")],
  ["blocks.0.ffn.0.weight", values([6, 4], "f64")],
  ["blocks.0.ffn.2.weight", values([4, 6], "f8_e4m3")],
  ["blocks.0.ffn.2.weight_scale", values([1])],
  ["head.head.weight", values([4, 3])],
  ["head.modulation", values([1, 2, 3])],
  ["step", values([], "i64")],
]);

/** Runs a seed writer in a folder of its own and gives its bytes. */
function made(write: (folder: string) => void, names: string[]): Input {
  const folder = mkdtempSync(join(tmpdir(), "rcm-seed-"));
  try {
    write(folder);
    return new Map(names.map((n) => [n, new Uint8Array(readFileSync(join(folder, n)))]));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Opens, recognises and reads a checkpoint, on the host and into device memory. */
function checkpoint(path: string): void {
  const opened = openCheckpoint(path);
  inspectWeights(path);
  inspectWeights(path, "student");
  let read = 0;
  for (const t of opened.tensors.values()) {
    if (++read > 8) break;
    const host = readHost(t);
    if (host.data.length > 1 << 20 || numel(t.shape) === 0) continue;
    using _scope = cpu().scope();
    readStored(t, cpu().empty(t.shape, t.dtype));
    if (isFloat(t.dtype) || t.dtype === "f8_e4m3") readStored(t, cpu().empty([numel(t.shape)], "f32"));
  }
}

const torchZip = writeTorch(STATE);
const members = [...readZip(torchZip, "seed")].map(([name, data]): [string, Uint8Array] => [name, data.slice()]);

const embed = writeTorch(values([2, 3, 4], "bf16"));
const embedMembers = [...readZip(embed, "seed")].map(([name, data]): [string, Uint8Array] => [name, data.slice()]);

/** Damage inside a member, with the archive put together anew; or of the archive. */
function damagedZip(rng: Rng, from: [string, Uint8Array][], whole: Uint8Array): Uint8Array {
  const kind = rng.below(4);
  if (kind === 0) return m.bytes(rng, whole);
  if (kind === 1) {
    // The directory and the end record, where places and sizes stand.
    const at = whole.length - 22 - from.reduce((n, [name]) => n + 46 + name.length, 0);
    return new Uint8Array(Buffer.concat([whole.subarray(0, at), m.bytes(rng, whole.subarray(at))]));
  }
  const list = from.map(([name, data]): [string, Uint8Array] => [
    name,
    name.endsWith("data.pkl") ? (rng.below(4) === 0 ? m.bytes(rng, data) : m.pickle(rng, data)) : data,
  ]);
  if (rng.below(4) === 0) list.splice(rng.below(list.length), 1);
  if (rng.below(8) === 0) list[rng.below(list.length)][1] = m.bytes(rng, m.pick(rng, list)[1]);
  return writeZip(list);
}

const safetensors = made((f) => writeSafetensors(join(f, "a"), STATE, { format: "pt" }), ["a"]).get("a") as Uint8Array;

function damagedSafetensors(rng: Rng): Uint8Array {
  if (rng.below(3) === 0) return m.bytes(rng, safetensors);
  const length = Number(new DataView(safetensors.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(safetensors.subarray(8, 8 + length)));
  const json = text(JSON.stringify(m.json(rng, header)));
  const head = new Uint8Array(8);
  new DataView(head.buffer).setBigUint64(0, BigInt(json.length), true);
  return new Uint8Array(Buffer.concat([head, json, safetensors.subarray(8 + length)]));
}

/** Damage of one of the pickles at the head, or anywhere. */
const legacySeeds = [
  legacyFile(STATE.size > 0 ? new Map([...STATE].filter(([, t]) => t.dtype === "f32")) : STATE),
  legacyFile(
    new Map([
      ["w", values([3, 4])],
      ["b", values([4])],
    ]),
    { share: true },
  ),
  legacyFile(new Map([["w", values([3, 4])]]), { transposed: true }),
];
function damagedLegacy(rng: Rng): Uint8Array {
  const seed = m.pick(rng, legacySeeds);
  if (rng.below(3) === 0) return m.bytes(rng, seed);
  const cuts = pickleEnds(seed);
  const i = rng.below(5);
  const [from, to] = [i === 0 ? 0 : cuts[i - 1], cuts[i]];
  return new Uint8Array(
    Buffer.concat([
      seed.subarray(0, from),
      m.pickle(rng, seed.subarray(from, to)),
      rng.below(6) === 0 ? m.bytes(rng, seed.subarray(to)) : seed.subarray(to),
    ]),
  );
}

/** Ends of the five pickles of a legacy seed: after each comes the start of the next, or the first storage. */
function pickleEnds(file: Uint8Array): number[] {
  const starts = [...file.keys()]
    .filter((i) => file[i] === 0x80 && file[i + 1] === 2 && (i === 0 || file[i - 1] === 0x2e))
    .slice(0, 5);
  const last = file.indexOf(0x2e, starts[4]);
  return [...starts.slice(1), last + 1];
}

const DCP_FILES = [".metadata", "__0_0.distcp", "__1_0.distcp"];
const dcp = made(
  (f) => writeDcp(f, new Map([...STATE].map(([k, t]) => [`net.${k}`, t])), { ranks: 2, grid: true }),
  DCP_FILES,
);
function damagedDcp(rng: Rng): Input {
  const name = rng.below(5) === 0 ? m.pick(rng, DCP_FILES) : ".metadata";
  const data = dcp.get(name) as Uint8Array;
  return new Map([...dcp, [name, name === ".metadata" && rng.below(5) > 0 ? m.pickle(rng, data) : m.bytes(rng, data)]]);
}

const INDEX = "diffusion_pytorch_model.safetensors.index.json";
const folderFiles = [
  INDEX,
  "config.json",
  ...[1, 2].map((i) => `diffusion_pytorch_model-0000${i}-of-00002.safetensors`),
];
const folder = made(
  (f) => writeDiffusers(f, STATE, { num_attention_heads: 1, patch_size: [1, 2, 2], text_len: 5 }, 2),
  folderFiles,
);
function damagedFolder(rng: Rng): Input {
  const name = m.pick(rng, [INDEX, INDEX, "config.json"]);
  const data = folder.get(name) as Uint8Array;
  const bad =
    rng.below(3) === 0
      ? m.bytes(rng, data)
      : text(JSON.stringify(m.json(rng, JSON.parse(new TextDecoder().decode(data)))));
  return new Map([...folder, [name, bad]]);
}

const longName = `${"deep/".repeat(30)}file`;
const tar = made(
  (f) =>
    writeTar(join(f, "a"), [
      ["one.txt", text("hello")],
      [longName, values([40]).data],
      ["empty", new Uint8Array(0)],
    ]),
  ["a"],
).get("a") as Uint8Array;
const shard = made(
  (f) =>
    writeShards(
      f,
      [0, 1].map((i) => ({
        key: String(i),
        latent: values([1, 1, 2, 2], "bf16"),
        embed: values([2, 3], "bf16"),
        prompt: "é",
      })),
    ),
  ["shard_000000.tar"],
).get("shard_000000.tar") as Uint8Array;

/** Damage of a header field with its checksum set right, or anywhere. */
function damagedTar(rng: Rng, seed: Uint8Array): Uint8Array {
  if (rng.below(3) === 0) return m.bytes(rng, seed);
  const b = seed.slice();
  const headers = Array.from({ length: b.length / 512 }, (_, i) => i * 512).filter(
    (at) => new TextDecoder().decode(b.subarray(at + 257, at + 262)) === "ustar",
  );
  const at = m.pick(rng, headers);
  const put = (field: number, value: string): void => b.set(text(value), at + field);
  switch (rng.below(6)) {
    case 0:
      put(124, `${m.pick(rng, m.EDGES).toString(8).padStart(11, "0").slice(-11)}\0`);
      break;
    case 1:
      b.set([0x80, ...new Array(11).fill(0).map(() => rng.below(3) * 127)], at + 124);
      break;
    case 2:
      put(156, m.pick(rng, ["0", "1", "2", "5", "7", "x", "g", "L", "K", "S", "\0", "?"]));
      break;
    case 3:
      b.set(m.bytes(rng, b.subarray(at, at + 148)).subarray(0, 148), at);
      break;
    case 4:
      b.set(m.bytes(rng, b.subarray(at + 512, at + 1024)).subarray(0, 512), at + 512);
      break;
    default:
      put(0, m.pick(rng, ["../../x", "", "a\0b", "000000000.latent.pt", "\u00ff"]));
  }
  let sum = 0;
  for (let i = 0; i < 512; i++) sum += i >= 148 && i < 156 ? 32 : b[at + i];
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  return rng.below(5) === 0 ? b.subarray(0, rng.below(b.length)) : b;
}

const RECIPES = ["base.yaml", "rcm.yaml", "teacher.yaml", "distill.yaml"].map((n) =>
  readFileSync(join(import.meta.dir, "../../recipes/digits", n), "utf8"),
);
const recipeInput = (yaml: string): Input =>
  new Map([
    ["recipe.yaml", text(yaml)],
    ["base.yaml", text(RECIPES[0])],
    ["distill.yaml", text(RECIPES[3])],
  ]);
const PIECES = [
  "plain.model",
  "plain.model",
  "plain.model",
  "plain.model",
  "plain.model",
  "plain.model",
  "plain.model",
  "tiny.model",
].map((n) => new Uint8Array(readFileSync(join(import.meta.dir, "../golden/text", n))));
const png = encodePng(
  new Uint8Array(5 * 7 * 3).map((_, i) => i * 37),
  7,
  5,
  3,
);

/** Damage inside a chunk with its checksum set right, or of the pixels before they are packed, or anywhere. */
function damagedPng(rng: Rng): Uint8Array {
  if (rng.below(4) === 0) return m.bytes(rng, png);
  const parts: Uint8Array[] = [png.subarray(0, 8)];
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const hurt = rng.below(2);
  for (let at = 8, i = 0; at < png.length; i++) {
    const length = view.getUint32(at);
    const type = png.subarray(at + 4, at + 8);
    let body: Uint8Array = png.subarray(at + 8, at + 8 + length);
    if (i === hurt)
      body =
        i === 1 && rng.below(2) === 0
          ? new Uint8Array(deflateSync(m.bytes(rng, new Uint8Array(inflateSync(body)))))
          : m.bytes(rng, body);
    const chunk = new Uint8Array(Buffer.concat([new Uint8Array(4), type, body, new Uint8Array(4)]));
    const out = new DataView(chunk.buffer);
    out.setUint32(0, body.length);
    out.setUint32(8 + body.length, crc32(chunk.subarray(4, 8 + body.length)));
    parts.push(chunk);
    at += 12 + length;
  }
  return new Uint8Array(Buffer.concat(parts));
}

export const TARGETS: Target[] = [
  {
    name: "torch zip",
    valid: one("a.pth", torchZip),
    make: (r) => one("a.pth", damagedZip(r, members, torchZip)),
    run: (f) => checkpoint(join(f, "a.pth")),
  },
  {
    name: "torch zip in memory",
    valid: one("a.pt", torchZip),
    make: (r) => one("a.pt", damagedZip(r, members, torchZip)),
    run: (f) => void readTorchTensors(join(f, "a.pt")),
  },
  {
    name: "torch legacy",
    valid: one("a.pth", legacySeeds[0]),
    make: (r) => one("a.pth", damagedLegacy(r)),
    run: (f) => checkpoint(join(f, "a.pth")),
  },
  {
    name: "safetensors",
    valid: one("a.safetensors", safetensors),
    make: (r) => one("a.safetensors", damagedSafetensors(r)),
    run: (f) => checkpoint(join(f, "a.safetensors")),
  },
  { name: "shard index and config", valid: folder, make: damagedFolder, run: checkpoint },
  { name: "distributed checkpoint", valid: dcp, make: damagedDcp, run: checkpoint },
  {
    name: "tar",
    valid: one("a.tar", tar),
    make: (r) => one("a.tar", damagedTar(r, tar)),
    run: (f) => {
      for (const entry of readTar(join(f, "a.tar"))) entry.data.length;
    },
  },
  {
    name: "data shard",
    valid: one("a.tar", shard),
    make: (r) => one("a.tar", damagedTar(r, shard)),
    run: (f) => void readShard(join(f, "a.tar")),
  },
  {
    name: "recipe",
    valid: recipeInput(RECIPES[1]),
    make: (r) => recipeInput(m.yaml(r, m.pick(r, RECIPES))),
    run: (f) => void loadRecipe(join(f, "recipe.yaml")),
  },
  {
    name: "sentencepiece model",
    valid: one("a.model", PIECES[0]),
    make: (r) => one("a.model", m.bytes(r, m.bytes(r, m.pick(r, PIECES)))),
    run: (f) =>
      void unigramJson(parseSentencePiece(new Uint8Array(readFileSync(join(f, "a.model"))), "a.model"), "a.model"),
  },
  {
    name: "text embeddings",
    valid: one("a.pt", embed),
    make: (r) => one("a.pt", damagedZip(r, embedMembers, embed)),
    run: (f) => void readEmbeddings(join(f, "a.pt")),
  },
  {
    name: "png",
    valid: one("a.png", png),
    make: (r) => one("a.png", damagedPng(r)),
    run: (f) => void decodePng(new Uint8Array(readFileSync(join(f, "a.png"))), "a.png"),
  },
];
