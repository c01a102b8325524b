import { join } from "node:path";
import { dtypeBytes, numel, type DType } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { MAX_HEADER, partOf, readWhole, withSource } from "./source.ts";
import { storedTensor, type ShardedTensor, type Stored, type StoredTensor } from "./stored.ts";
import { locateTorch, TORCH_DTYPES } from "./torch_read.ts";
import { isGlobal, isObject, type PickleObject, type PickleValue } from "./pickle_values.ts";
import { unpickle } from "./unpickle.ts";

/**
 * A distributed checkpoint of torch is a folder: `.metadata`, a pickle that maps each block of each tensor to its
 * location, and data files in which each block is a separate torch.save. Objects of the pickle are read as plain data.
 * Source: torch/distributed/checkpoint/metadata.py and filesystem.py.
 */
export const DCP_METADATA = ".metadata";

interface Block {
  start: number[];
  sizes: number[];
  file: string;
  offset: number;
  length: number;
}

const bad = (path: string, message: string, got?: unknown): RcmError =>
  new RcmError("E_FORMAT", `${path}: ${message}`, { op: "dcp", got });

/** Name, shape and location of every tensor; other values are ignored. Throws: E_IO, E_FORMAT. */
export function openDcp(folder: string, verify = false): Stored[] {
  const path = join(folder, DCP_METADATA);
  const root = withSource(path, (source) => unpickle(readWhole(source, MAX_HEADER), path, "metadata"), "dcp");
  const { tensors, files } = parseMetadata(root, path);
  const placed = new Map<Block, StoredTensor>();
  for (const [file, blocks] of files) {
    const full = join(folder, file);
    withSource(
      full,
      (source) => {
        for (const { name, dtype, block } of blocks) {
          if (block.offset + block.length > source.size)
            throw bad(full, `ends before the block of ${name}`, {
              offset: block.offset,
              length: block.length,
              size: source.size,
            });
          const { tree } = locateTorch(partOf(source, block.offset, block.length, `${full} (${name})`), { verify });
          if (typeof tree !== "object" || tree === null || Array.isArray(tree) || tree instanceof Map)
            throw bad(full, `the block of ${name} is no tensor`);
          if (tree.dtype !== dtype || !same(tree.shape, block.sizes))
            throw bad(full, `the block of ${name} differs from ${DCP_METADATA}`, `${tree.dtype} ${tree.shape}`);
          placed.set(block, storedTensor(name, full, { ...tree, offset: tree.offset + block.offset }));
        }
      },
      "dcp",
    );
  }
  return tensors.map(({ name, dtype, shape, blocks }): Stored => {
    const parts = blocks.map((b) => ({ start: b.start, stored: placed.get(b) as StoredTensor }));
    if (parts.length === 1 && same(parts[0].stored.shape, shape)) return parts[0].stored;
    const whole: ShardedTensor = { name, dtype, shape, bytes: numel(shape) * dtypeBytes(dtype), parts };
    return whole;
  });
}

interface Described {
  name: string;
  dtype: DType;
  shape: number[];
  blocks: Block[];
}

/** The blocks by file, and the tensors that they form. */
function parseMetadata(
  root: PickleValue,
  path: string,
): { tensors: Described[]; files: Map<string, { name: string; dtype: DType; block: Block }[]> } {
  const top = fields(root, "Metadata", path);
  const described = asMap(top.get("state_dict_metadata"), "state_dict_metadata", path);
  const places = new Map<string, { file: string; offset: number; length: number }>();
  for (const [index, info] of asMap(top.get("storage_data"), "storage_data", path)) {
    const i = fields(index, "MetadataIndex", path);
    const s = fields(info, "_StorageInfo", path);
    const [name, start] = [i.get("fqn"), i.get("offset") ?? null];
    const [file, offset, length, transforms] = [
      s.get("relative_path"),
      s.get("offset"),
      s.get("length"),
      s.get("transform_descriptors") ?? null,
    ];
    if (
      typeof name !== "string" ||
      (start !== null && !isCounts(start)) ||
      typeof file !== "string" ||
      !isCount(offset) ||
      !isCount(length)
    )
      throw bad(path, "has a place of another form");
    if (file === "" || file === "." || file === ".." || /[/\\\0]/.test(file))
      throw bad(path, "names a file outside its folder", file);
    if (Array.isArray(transforms) && transforms.length > 0)
      throw bad(path, `${name} is stored compressed or encrypted`);
    places.set(placeKey(name, start), { file, offset, length });
  }
  const tensors: Described[] = [];
  const files = new Map<string, { name: string; dtype: DType; block: Block }[]>();
  for (const [name, info] of described) {
    if (typeof name !== "string" || !isObject(info)) throw bad(path, "describes something that has no name");
    if (info.class !== "TensorStorageMetadata") continue;
    const t = fields(info, info.class, path);
    const [shape, chunks] = [t.get("size"), t.get("chunks")];
    const dtype = dtypeOf(t.get("properties"));
    if (!isCounts(shape) || !Array.isArray(chunks)) throw bad(path, `describes ${name} in another form`);
    if (dtype === null) throw bad(path, `${name} has a dtype that is not read`);
    const blocks: Block[] = [];
    for (const chunk of chunks) {
      const c = fields(chunk, "ChunkStorageMetadata", path);
      const [start, sizes] = [c.get("offsets"), c.get("sizes")];
      if (!isCounts(start) || !isCounts(sizes) || start.length !== shape.length || sizes.length !== shape.length)
        throw bad(path, `describes a block of ${name} in another form`);
      if (sizes.some((d, i) => start[i] + d > shape[i]))
        throw bad(path, `a block of ${name} lies outside it`, { shape, start, sizes });
      if (numel(sizes) === 0 && numel(shape) > 0) continue;
      const place = places.get(placeKey(name, start)) ?? places.get(placeKey(name, null));
      if (!place) throw bad(path, `has no location for a block of ${name}`, start);
      const block = { start, sizes, ...place };
      blocks.push(block);
      const list = files.get(place.file) ?? [];
      list.push({ name, dtype, block });
      files.set(place.file, list);
    }
    expectCover(name, shape, blocks, path);
    tensors.push({ name, dtype, shape, blocks });
  }
  return { tensors, files };
}

/** Blocks fill a tensor exactly when their counts add up and no two overlap. */
function expectCover(name: string, shape: number[], blocks: Block[], path: string): void {
  const total = blocks.reduce((n, b) => n + numel(b.sizes), 0);
  if (total !== numel(shape) || !Number.isSafeInteger(total * 8))
    throw bad(path, `the blocks of ${name} do not fill it`, { shape, elements: total });
  if (shape.length === 0 && blocks.length > 1) throw bad(path, `${name} has several blocks of one element`);
  if (blocks.length > 65536) throw bad(path, `${name} has too many blocks`, blocks.length);
  const sorted = [...blocks].sort((a, b) => a.start[0] - b.start[0]);
  for (let i = 0; i < sorted.length; i++) {
    const a = sorted[i];
    for (let j = i + 1; j < sorted.length && sorted[j].start[0] < a.start[0] + a.sizes[0]; j++) {
      const b = sorted[j];
      if (shape.every((_, k) => a.start[k] < b.start[k] + b.sizes[k] && b.start[k] < a.start[k] + a.sizes[k]))
        throw bad(path, `two blocks of ${name} overlap`);
    }
  }
}

/** TensorProperties are kept as a tuple that starts with the dtype, or as attributes. */
function dtypeOf(properties: PickleValue | undefined): DType | null {
  const state = isObject(properties) ? properties.state : null;
  const dtype = Array.isArray(state) ? state[0] : state instanceof Map ? state.get("dtype") : null;
  const name = isGlobal(dtype) ? dtype.global.replace(/^torch /, "") : "";
  return Object.hasOwn(TORCH_DTYPES, name) ? TORCH_DTYPES[name] : null;
}

/** Attributes of an object of a class. */
function fields(v: PickleValue, type: string, path: string): Map<PickleValue, PickleValue> {
  const object = isObject(v) && v.class === type ? (v as PickleObject) : null;
  if (!object || !(object.state instanceof Map)) throw bad(path, `has no ${type} where one belongs`);
  return object.state;
}
function asMap(v: PickleValue | undefined, what: string, path: string): Map<PickleValue, PickleValue> {
  if (!(v instanceof Map)) throw bad(path, `has no ${what}`);
  return v;
}
const isCount = (v: PickleValue | undefined): v is number => Number.isSafeInteger(v) && (v as number) >= 0;
const isCounts = (v: PickleValue | undefined): v is number[] => Array.isArray(v) && v.every(isCount);
const same = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((d, i) => d === b[i]);
const placeKey = (name: string, start: number[] | null): string => `${name}\0${start?.join(",") ?? ""}`;
