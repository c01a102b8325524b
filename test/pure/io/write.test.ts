import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dtypeBytes, hostTensor, type DType, type HostTensor } from "../../../core/dtype.ts";
import { openCheckpoint, readHost } from "../../../core/io/checkpoint.ts";
import { DCP_DATA, writeDcp } from "../../../core/io/dcp_write.ts";
import { AtomicFile, type OutFile } from "../../../core/io/out_file.ts";
import { dict, orderedDict, pickle, tuple } from "../../../core/io/pickler.ts";
import { streamSafetensors } from "../../../core/io/safetensors.ts";
import { hostStream, type TensorStream } from "../../../core/io/tensor_stream.ts";
import { streamTorch } from "../../../core/io/torch.ts";
import { ZipWriter } from "../../../core/io/torch_zip.ts";
import { unpickle } from "../../../core/io/unpickle.ts";
import { withSource } from "../../../core/io/source.ts";
import { ZipDirectory } from "../../../core/io/zip_read.ts";

const dir = mkdtempSync(join(tmpdir(), "rcm-write-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const DTYPES: DType[] = ["f8_e4m3", "u8", "bf16", "f32", "f16", "f64", "i32", "i64", "bool"];
const TENSORS = DTYPES.flatMap((dtype, i): [string, HostTensor][] => [
  [`layer.${i}.weight`, hostTensor(dtype, [2, 3], [0, 1, 1, 0, 1, 0])],
  [`layer.${i}.scale`, hostTensor(dtype, [], [1])],
  [`layer.${i}.odd`, hostTensor(dtype, [5], [1, 0, 0, 1, 1])],
]);
const streams = (): TensorStream[] => TENSORS.map(([n, t]) => hostStream(n, t));

function whole(path: string, write: (file: OutFile) => void): string {
  using file = new AtomicFile(path);
  write(file);
  file.commit();
  return path;
}
const readAll = (path: string): Record<string, HostTensor> =>
  Object.fromEntries(
    [...openCheckpoint(path).tensors].map(([n, t]) => [n, { ...readHost(t), data: Uint8Array.from(readHost(t).data) }]),
  );
const wanted = Object.fromEntries(TENSORS.map(([n, t]) => [n, { ...t, data: Uint8Array.from(t.data) }]));

describe("writers, read back by header", () => {
  test("safetensors: every dtype, each at a multiple of its size", () => {
    const path = whole(join(dir, "a.safetensors"), (f) => streamSafetensors(f, streams(), { k: "v" }));
    expect(readAll(path)).toEqual(wanted);
    const opened = openCheckpoint(path);
    expect([...opened.tensors.keys()]).toEqual(TENSORS.map(([n]) => n));
    expect(opened.metadata).toEqual({ k: "v" });
    for (const t of opened.tensors.values())
      if ("offset" in t) expect([t.name, t.offset % dtypeBytes(t.dtype)]).toEqual([t.name, 0]);
  });

  test("torch archive: every dtype, data at multiples of 64 bytes", () => {
    const path = whole(join(dir, "a.pth"), (f) => streamTorch(f, streams()));
    expect(readAll(path)).toEqual(wanted);
    for (const t of openCheckpoint(path).tensors.values()) if ("offset" in t) expect(t.offset % 64).toBe(0);
  });

  test("distributed checkpoint: every dtype", () => {
    writeDcp(join(dir, "dcp"), streams());
    expect(readdirSync(join(dir, "dcp")).sort()).toEqual([".metadata", DCP_DATA]);
    const opened = openCheckpoint(join(dir, "dcp"));
    expect(opened.format).toBe("dcp");
    expect(readAll(join(dir, "dcp"))).toEqual(wanted);
  });

  test("a tensor that gives another number of bytes is a bug that is named, and leaves nothing", () => {
    const lying = (): TensorStream[] => [{ ...hostStream("short", TENSORS[0][1]), bytes: 99 }];
    for (const write of [(f: OutFile) => streamSafetensors(f, lying()), (f: OutFile) => streamTorch(f, lying())]) {
      expect(() => whole(join(dir, "lie"), write)).toThrow(/gave 6 bytes instead of 99/);
    }
    expect(existsSync(join(dir, "lie"))).toBe(false);
    expect(readdirSync(dir).filter((f) => f.endsWith(".tmp"))).toEqual([]);
    writeFileSync(join(dir, "plain"), "");
    expect(() => new AtomicFile(join(dir, "plain/x"))).toThrow("cannot write");
  });
});

/** An archive that never lies in memory: zeros are counted, not kept; what is small is kept at its place. */
class SparseFile implements OutFile {
  constructor(readonly file: AtomicFile) {}
  position = 0;
  write(chunk: Uint8Array): void {
    if (chunk !== ZEROS) this.file.patch(this.position, chunk);
    this.position += chunk.length;
  }
  patch(at: number, chunk: Uint8Array): void {
    this.file.patch(at, chunk);
  }
}
const ZEROS = new Uint8Array(1 << 28);

describe("archives beyond 4 GiB (sparse file)", () => {
  test("a member of 5 GiB, members behind it, more than 65,535 of them: sizes and places come back", () => {
    const path = join(dir, "big.pth");
    const five = function* (): Generator<Uint8Array> {
      for (let i = 0; i < 20; i++) yield ZEROS;
    };
    whole(path, (file) => {
      const sparse = new SparseFile(file as AtomicFile);
      const zip = new ZipWriter(sparse);
      zip.member("archive/data/0", 5 * 2 ** 30, five());
      for (let i = 1; i < 65_600; i++) zip.member(`archive/data/${i}`, 3, [Uint8Array.of(i & 255, i >> 8, 7)]);
      zip.end();
    });
    expect(statSync(path).size).toBeGreaterThan(5 * 2 ** 30);
    withSource(path, (source) => {
      const zip = new ZipDirectory(source);
      expect(zip.names.length).toBe(65_600);
      expect(zip.locate("archive/data/0")?.size).toBe(5 * 2 ** 30);
      for (const i of [1, 300, 65_599]) {
        const at = zip.locate(`archive/data/${i}`);
        expect(at && at.offset > 5 * 2 ** 30 && at.offset % 64 === 0).toBe(true);
        expect([...(zip.read(`archive/data/${i}`) as Uint8Array)]).toEqual([i & 255, (i >> 8) & 255, 7]);
      }
    });
  }, 120_000);
});

describe("pickler", () => {
  test("values come back", () => {
    const numbers = [0, 255, 256, 65_535, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 40, 2 ** 53 - 1];
    const text = "é漢字";
    expect(
      unpickle(
        pickle(
          dict([["numbers", numbers], [text, tuple(null, true, false, text)], ["none", orderedDict([])]]),
        ),
        "x",
      ),
    ).toEqual(
      new Map<string, unknown>([
        ["numbers", numbers], [text, [null, true, false, text]], ["none", new Map()],
      ]) as never,
    );
  });
  test("bytes as Python's own protocol 2 has them, without memo", () => {
    expect(Buffer.from(pickle(dict([["a", tuple(1, 300)]]))).toString("latin1")).toBe(
      "\x80\x02}(X\x01\x00\x00\x00a(K\x01M,\x01tu.",
    );
    expect(readFileSync(join(dir, "dcp/.metadata")).toString("latin1")).toContain(
      "ctorch.distributed.checkpoint.metadata\nTensorStorageMetadata\n)\x81",
    );
  });
});
