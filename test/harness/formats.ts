import { mkdirSync, writeFileSync } from "node:fs";
import { keyOf } from "./wan_net.ts";
import { join } from "node:path";
import { dtypeBytes, numel, type DType, type HostTensor } from "../../core/dtype.ts";
import { writeSafetensors } from "../../core/io/safetensors.ts";
import { copyStrided, denseStrides } from "../../core/io/strided.ts";
import { writeTorch } from "../../core/io/torch.ts";
import * as p from "./pickle.ts";

/** Writers of every format that checkpoints come in, apart from the program's own. */

export type Tensors = ReadonlyMap<string, HostTensor>;
const TYPES: Partial<Record<DType, string>> = {
  f32: "Float", bf16: "BFloat16", f16: "Half", f64: "Double", i64: "Long",
};
const NAMES: Partial<Record<DType, string>> = {
  f32: "float32", bf16: "bfloat16", f16: "float16", f64: "float64", i64: "int64", f8_e4m3: "float8_e4m3fn",
};

export const renamed = (tensors: Tensors, name: (key: string) => string): Tensors =>
  new Map([...tensors].map(([k, t]) => [name(k), t]));

/** The patch embedding as the Conv3d weight it is in published files. */
export function asPublished(tensors: Tensors, patch: readonly number[]): Tensors {
  const key = "patch_embedding.weight";
  const t = tensors.get(key) as HostTensor;
  return new Map([...tensors, [key, { ...t, shape: [t.shape[0], t.shape[1] / numel(patch), ...patch] }]]);
}

/**
 * torch.save before 1.6: pickles, then raw storages. With `transposed`, matrices are views of transposed storages; with
 * `share`, all tensors are views of one storage.
 */
export function legacyFile(tensors: Tensors, o: { transposed?: boolean; share?: boolean } = {}): Uint8Array {
  const storages: Uint8Array[] = [];
  const each = (dtype: DType): number => dtypeBytes(dtype);
  const first = [...tensors.values()][0];
  const shared = o.share ? [...tensors.values()].reduce((n, t) => n + numel(t.shape), 0) : 0;
  let used = 0;
  const entries = [...tensors].map(([key, t]): [p.Bytes, p.Bytes] => {
    const strides = denseStrides(t.shape);
    let data = t.data;
    if (o.transposed && t.shape.length === 2) {
      const [rows, columns] = t.shape;
      [strides[0], strides[1]] = [1, rows];
      data = new Uint8Array(t.data.length);
      copyStrided({ data: t.data, strides: [columns, 1] }, { data, strides: [1, rows] }, t.shape, each(t.dtype));
    }
    if (!o.share || storages.length === 0) storages.push(data);
    else storages[0] = new Uint8Array(Buffer.concat([storages[0], data]));
    const offset = o.share ? used : 0;
    used += numel(t.shape);
    const where = o.share ? "0" : String(storages.length - 1);
    return [
      p.str(key),
      p.tensor({
        storage: where, type: TYPES[t.dtype] as string, count: o.share ? shared : numel(t.shape), offset,
        shape: t.shape, strides, legacy: true,
      }),
    ];
  });
  const head = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
  const system = p.dict(
    [p.str("protocol_version"), p.int(1001)], [p.str("little_endian"), p.bool(true)],
    [p.str("type_sizes"), p.dict([p.str("int"), p.int(4)])],
  );
  const parts = [
    p.file([
      ...p.proto(2), ...head, ...p.STOP, ...p.proto(2), ...p.int(1001), ...p.STOP, ...p.proto(2), ...system,
      ...p.STOP,
    ]),
    p.file(p.proto(2), p.call(p.global("collections", "OrderedDict")), [0x28], entries.flat(2), [0x75], p.STOP),
    p.file(p.proto(2), p.list(...storages.map((_, i) => p.str(String(i)))), p.STOP),
    ...storages.flatMap((data) => [p.file(p.le(data.length / each(first.dtype), 8)), data]),
  ];
  return new Uint8Array(Buffer.concat(parts));
}

const METADATA = "torch.distributed.checkpoint.metadata";

export interface DcpOptions {
  ranks: number;
  /** Cut matrices in columns as well as rows. */
  grid?: boolean;
}

/** A folder as torch.distributed.checkpoint writes it: blocks of every tensor over the files of several ranks. */
export function writeDcp(folder: string, tensors: Tensors, o: DcpOptions): void {
  mkdirSync(folder, { recursive: true });
  const files = Array.from({ length: o.ranks }, (): Uint8Array[] => []);
  const ends = files.map(() => 0);
  const meta = (name: string): p.Bytes => p.stackGlobal(METADATA, name);
  const described: [p.Bytes, p.Bytes][] = [];
  const places: [p.Bytes, p.Bytes][] = [];
  for (const [name, t] of tensors) {
    const chunks: p.Bytes[] = [];
    blocksOf(t, o).forEach(({ start, shape }, i) => {
      const bytes = writeTorch(blockOf(t, start, shape));
      const rank = i % o.ranks;
      files[rank].push(bytes);
      chunks.push(
        p.object(
          meta("ChunkStorageMetadata"),
          p.dict([p.str("offsets"), p.size(start)], [p.str("sizes"), p.size(shape)]),
        ),
      );
      places.push([
        p.object(
          meta("MetadataIndex"),
          p.dict([p.str("fqn"), p.str(name)], [p.str("offset"), p.size(start)], [p.str("index"), p.int(i)]),
        ),
        p.object(
          p.stackGlobal("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
          p.dict(
            [p.str("relative_path"), p.str(`__${rank}_0.distcp`)], [p.str("offset"), p.int(ends[rank])],
            [p.str("length"), p.int(bytes.length)],
          ),
        ),
      ]);
      ends[rank] += bytes.length;
    });
    const layout = p.call(p.global("torch.serialization", "_get_layout"), p.str("torch.strided"));
    const properties = p.object(
      meta("TensorProperties"),
      p.tuple(
        p.global("torch", NAMES[t.dtype] as string), layout, p.bool(false),
        p.call(meta("_MEM_FORMAT_ENCODING"), p.int(0)), p.bool(false),
      ),
    );
    described.push([
      p.str(name),
      p.object(
        meta("TensorStorageMetadata"),
        p.dict(
          [p.str("properties"), properties], [p.str("size"), p.size(t.shape)], [p.str("chunks"), p.list(...chunks)],
        ),
      ),
    ]);
  }
  described.push([p.str("trainer.step"), [...meta("BytesStorageMetadata"), 0x29, 0x81]]);
  const root = p.object(
    meta("Metadata"),
    p.dict(
      [p.str("state_dict_metadata"), p.dict(...described)], [p.str("planner_data"), p.NONE],
      [p.str("storage_data"), p.dict(...places)],
    ),
  );
  files.forEach((parts, rank) => writeFileSync(join(folder, `__${rank}_0.distcp`), Buffer.concat(parts)));
  writeFileSync(join(folder, ".metadata"), p.file(p.proto(4), root, p.STOP));
}

function blocksOf(t: HostTensor, o: DcpOptions): { start: number[]; shape: number[] }[] {
  const cut = (n: number, parts: number): [number, number][] => {
    const each = Math.max(1, Math.ceil(n / parts));
    return Array.from({ length: Math.ceil(n / each) }, (_, i) => [i * each, Math.min(each, n - i * each)]);
  };
  if (t.shape.length === 0) return [{ start: [], shape: [] }];
  const rest = t.shape.slice(2);
  const columns = t.shape.length > 1 ? cut(t.shape[1], o.grid ? 2 : 1) : [];
  return cut(t.shape[0], o.ranks).flatMap(([row, rows]) =>
    t.shape.length === 1
      ? [{ start: [row], shape: [rows] }]
      : columns.map(([column, width]) => ({
          start: [row, column, ...rest.map(() => 0)],
          shape: [rows, width, ...rest],
        })),
  );
}

function blockOf(t: HostTensor, start: number[], shape: number[]): HostTensor {
  const each = dtypeBytes(t.dtype);
  const strides = denseStrides(t.shape);
  const data = new Uint8Array(new ArrayBuffer(numel(shape) * each));
  const first = start.reduce((at, s, i) => at + s * strides[i], 0);
  const from = { data: t.data.subarray(first * each), strides };
  copyStrided(from, { data, strides: denseStrides(shape) }, shape, each);
  return { dtype: t.dtype, shape, data };
}

/** A diffusers folder: sharded safetensors with their index and a config.json. */
export function writeDiffusers(folder: string, tensors: Tensors, config: Record<string, unknown>, shards = 3): void {
  mkdirSync(folder, { recursive: true });
  const all = [...renamed(tensors, (k) => keyOf("diffusers", "", k))];
  const map: Record<string, string> = {};
  for (let s = 0; s < shards; s++) {
    const file = `diffusion_pytorch_model-0000${s + 1}-of-0000${shards}.safetensors`;
    const part = all.filter((_, i) => i % shards === s);
    for (const [key] of part) map[key] = file;
    writeSafetensors(join(folder, file), part, { format: "pt" });
  }
  writeFileSync(
    join(folder, "diffusion_pytorch_model.safetensors.index.json"),
    JSON.stringify({ metadata: { total_size: 1 }, weight_map: map }),
  );
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
}
