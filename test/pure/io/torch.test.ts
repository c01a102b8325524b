import { describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostTensor, type DType, type HostTensor } from "../../../core/dtype.ts";
import { RcmError } from "../../../core/error.ts";
import { writeFileAtomic } from "../../../core/io/atomic.ts";
import { parseSafetensors, readSafetensors, writeSafetensors } from "../../../core/io/safetensors.ts";
import { readTorch, readTorchTensor, readTorchTensors, writeTorch } from "../../../core/io/torch.ts";
import { unpickle } from "../../../core/io/unpickle.ts";
import { readZip } from "../../../core/io/zip_read.ts";
import { writeZip } from "../../harness/archives.ts";
import { Rng } from "../../../core/rng.ts";

const DTYPES: DType[] = ["f32", "bf16", "f16", "f64", "i32", "i64", "u8", "bool"];
const sample = (dtype: DType): HostTensor => hostTensor(dtype, [2, 3], [0, 1, 1, 0, 1, 0]);
const text = (s: string): Uint8Array => new TextEncoder().encode(s);
const failure = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (!(error instanceof RcmError)) throw error;
    return `${error.code} ${error.message}`;
  }
  return "no error";
};
const torchFile = (pickle: Uint8Array): Uint8Array =>
  writeZip([["archive/data.pkl", pickle], ["archive/data/0", new Uint8Array(24)]]);

/** Seeded byte mutations: flips, cuts, insertions. */
function* mutations(bytes: Uint8Array, count: number): Generator<Uint8Array> {
  const rng = new Rng(11, 3);
  for (let i = 0; i < count; i++) {
    const copy = bytes.slice();
    for (let k = 0; k <= rng.below(4); k++) copy[rng.below(copy.length)] = rng.below(256);
    yield rng.below(4) === 0 ? copy.subarray(0, rng.below(copy.length)) : copy;
  }
}

describe("torch files", () => {
  test("one tensor and a state dict, every dtype, bitwise", () => {
    for (const dtype of DTYPES) expect(readTorchTensor(writeTorch(sample(dtype)))).toEqual(sample(dtype));
    const dict = DTYPES.map((d): [string, HostTensor] => [`layer.${d}`, sample(d)]);
    expect(
      [...readTorchTensors(writeTorch(dict))].map(([k, t]) => [k, { ...t, data: new Uint8Array(t.data) }]),
    ).toEqual(dict as never);
    expect(readTorchTensor(writeTorch(hostTensor("f32", [], [3]))).shape).toEqual([]);
    expect(readTorchTensor(writeTorch(hostTensor("f32", [0, 4], []))).data.length).toBe(0);
    expect(readTorchTensor(writeTorch(hostTensor("u8", [70_000], new Uint8Array(70_000).fill(7)))).shape).toEqual([
      70_000,
    ]);
  });

  test("data start at multiples of 64 bytes", () => {
    const file = writeTorch([["a", sample("f32")], ["b", sample("u8")]]);
    for (const [name, data] of readZip(file, "x"))
      if (name.includes("/data/")) expect((data.byteOffset - file.byteOffset) % 64).toBe(0);
  });

  test("a pickle that calls os.system is refused by name, and nothing runs", () => {
    const marker = join(tmpdir(), `rcm-pwned-${process.pid}`);
    const evil = text(`cposix\nsystem\n(S'touch ${marker}'\ntR.`);
    expect(failure(() => readTorch(torchFile(evil), "evil.pt"))).toMatch(/E_FORMAT.*evil\.pt.*posix\.system.*refused/);
    const stacked = Uint8Array.from([0x80, 4, 0x8c, 2, ...text("os"), 0x8c, 6, ...text("system"), 0x93, 0x2e]);
    expect(failure(() => unpickle(stacked, "evil.pt"))).toContain("os.system");
    for (const op of ["i", "o", "\x81", "\x92", "\x82", "P"])
      expect(failure(() => unpickle(text(`(${op}.`), "evil.pt"))).toContain("E_FORMAT");
    expect(existsSync(marker)).toBe(false);
  });

  test("deep nesting, cycles and references to nothing", () => {
    expect(
      failure(() =>
        unpickle(Uint8Array.from([...new Array(5000).fill(0x5d), ...new Array(4999).fill(0x61), 0x2e]), "deep"),
      ),
    ).toContain("nested too deeply");
    expect(failure(() => unpickle(Uint8Array.from([0x5d, 0x71, 0, 0x68, 0, 0x61, 0x2e]), "cycle"))).toContain(
      "contains itself",
    );
    expect(failure(() => unpickle(Uint8Array.from([0x68, 9, 0x2e]), "memo"))).toContain("not stored");
  });

  test("tensors that reach outside their storage", () => {
    const file = writeTorch(hostTensor("f32", [100], new Float32Array(100)));
    const pickle = readZip(file, "x").get("archive/data.pkl") as Uint8Array;
    expect(
      failure(() =>
        readTorch(
          writeZip([["archive/data.pkl", pickle], ["archive/data/0", new Uint8Array(8)]]),
          "short.pt",
        ),
      ),
    ).toContain("short.pt");
    expect(failure(() => readTorch(writeZip([["archive/data.pkl", pickle]]), "none.pt"))).toContain("data/0");
  });

  test("damage is found by checksum; a cut legacy file and no zip at all are named", () => {
    const file = writeTorch(sample("f32")).slice();
    const [, data] = [...readZip(file, "x")].find(([n]) => n.endsWith("data/0")) as [string, Uint8Array];
    file[data.byteOffset - file.byteOffset + 3] ^= 1;
    expect(failure(() => readTorch(file, "flip.pt"))).toContain("checksum");
    expect(failure(() => readTorch(Uint8Array.of(0x80, 2, 0x8a), "old.pt"))).toContain("old.pt: ends in the middle");
    expect(failure(() => readTorch(text("hello"), "no.pt"))).toContain("not a torch zip");
    expect(failure(() => readTorch("missing.pt"))).toContain("E_IO");
  });

  test("3,000 mutations only ever raise RcmError", () => {
    const pickle = readZip(
      writeTorch([["a", sample("f32")], ["b", sample("i64")]]),
      "x",
    ).get("archive/data.pkl") as Uint8Array;
    for (const m of mutations(pickle, 2000)) failure(() => unpickle(m, "fuzz"));
    for (const m of mutations(writeTorch(sample("f32")), 1000)) failure(() => readTorch(m, "fuzz"));
  });
});

describe("safetensors", () => {
  const dir = mkdtempSync(join(tmpdir(), "rcm-st-"));
  const build = (header: string, data = new Uint8Array(0)): Uint8Array => {
    const h = text(header);
    const out = new Uint8Array(8 + h.length + data.length);
    new DataView(out.buffer).setBigUint64(0, BigInt(h.length), true);
    out.set(h, 8);
    out.set(data, 8 + h.length);
    return out;
  };

  test("every dtype, metadata and order come back bitwise", () => {
    const path = join(dir, "a.safetensors");
    const tensors = DTYPES.map((d): [string, HostTensor] => [`t.${d}`, sample(d)]);
    writeSafetensors(path, tensors, { note: "é" });
    const back = readSafetensors(path);
    expect(back.metadata).toEqual({ note: "é" });
    expect([...back.tensors.keys()]).toEqual(tensors.map(([n]) => n));
    for (const [name, t] of tensors) expect(Buffer.compare(back.tensors.get(name)?.data as Uint8Array, t.data)).toBe(0);
    expect(readFileSync(path).readBigUInt64LE(0) % 8n).toBe(0n);
  });

  test("each lie is named", () => {
    const cases: [Uint8Array, string][] = [
      [new Uint8Array(3), "shorter than a header"],
      [build("{}").subarray(0, 9), "header longer"],
      [build("{nope"), "not JSON"],
      [build("[]"), "not an object"],
      [build('{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', new Uint8Array(4)), "unknown dtype"],
      [build('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', new Uint8Array(4)), "wrong size"],
      [build('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', new Uint8Array(4)), "outside the file"],
      [build('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', new Uint8Array(4)), "no valid shape"],
      [
        build(
          '{"a":{"dtype":"F32","shape":[9007199254740991,9007199254740991],"data_offsets":[0,4]}}',
          new Uint8Array(4),
        ),
        "wrong size",
      ],
      [
        build(
          '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}',
          new Uint8Array(6),
        ),
        "overlap",
      ],
    ];
    for (const [bytes, want] of cases) expect(failure(() => parseSafetensors(bytes, "x.safetensors"))).toContain(want);
  });

  test("2,000 mutations only ever raise RcmError", () => {
    const path = join(dir, "f.safetensors");
    writeSafetensors(path, [["a", sample("f32")], ["b", sample("i64")]], { k: "v" });
    for (const m of mutations(readFileSync(path), 2000)) failure(() => parseSafetensors(m, "fuzz"));
  });

  test("a write that fails leaves the old file and no rubbish", () => {
    const path = join(dir, "keep.txt");
    writeFileAtomic(path, "old");
    const chunks = function* (): Generator<Uint8Array> {
      yield text("half");
      throw new Error("source broke");
    };
    expect(() => writeFileAtomic(path, chunks())).toThrow("source broke");
    expect(readFileSync(path, "utf8")).toBe("old");
    writeFileSync(join(dir, "plain"), "");
    expect(failure(() => writeFileAtomic(join(dir, "plain/x"), "y"))).toContain("E_IO");
    expect(readdirSync(dir).filter((f) => f.endsWith(".tmp"))).toEqual([]);
    rmSync(dir, { recursive: true, force: true });
  });
});
