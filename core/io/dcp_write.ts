import { join } from "node:path";
import type { DType } from "../dtype.ts";
import { DCP_METADATA } from "./dcp.ts";
import { AtomicFile } from "./out_file.ts";
import { call, dict, object, pickle, torchDType, tuple, type Pickled } from "./pickler.ts";
import type { TensorStream } from "./tensor_stream.ts";
import { streamTorchTensor } from "./torch.ts";

/**
 * A distributed checkpoint of torch with one data file: each tensor is a separate torch.save in it, located by
 * `.metadata`. Classes have their names of torch 2.3 and newer. Source:
 * torch/distributed/checkpoint/{metadata,filesystem}.py.
 */
const META = "torch.distributed.checkpoint.metadata";
export const DCP_DATA = "__0_0.distcp";

interface Placed {
  name: string;
  dtype: DType;
  shape: readonly number[];
  offset: number;
  length: number;
}

/**
 * Writes data file and metadata into a folder, the metadata last: an interrupted write leaves no valid checkpoint.
 * Throws: E_IO.
 */
export function writeDcp(folder: string, tensors: readonly TensorStream[]): void {
  const placed: Placed[] = [];
  using data = new AtomicFile(join(folder, DCP_DATA));
  for (const t of tensors) {
    const offset = data.position;
    streamTorchTensor(data, t);
    placed.push({ name: t.name, dtype: t.dtype, shape: t.shape, offset, length: data.position - offset });
  }
  data.commit();
  using metadata = new AtomicFile(join(folder, DCP_METADATA));
  metadata.write(dcpMetadata(placed));
  metadata.commit();
}

const size = (shape: readonly number[]): Pickled => call("torch", "Size", tuple(...shape));

function dcpMetadata(placed: readonly Placed[]): Uint8Array {
  const attributes = (items: Record<string, Pickled>): Pickled => dict(Object.entries(items));
  // Memory format 0 is contiguous; no gradients, no pinned memory.
  const properties = (dtype: DType): Pickled =>
    object(
      META,
      "TensorProperties",
      tuple(
        torchDType(dtype),
        call("torch.serialization", "_get_layout", "torch.strided"),
        false,
        call(META, "_MEM_FORMAT_ENCODING", 0),
        false,
      ),
    );
  const described = placed.map(({ name, dtype, shape }): [Pickled, Pickled] => [
    name,
    object(
      META,
      "TensorStorageMetadata",
      attributes({
        properties: properties(dtype),
        size: size(shape),
        chunks: [
          object(META, "ChunkStorageMetadata", attributes({ offsets: size(shape.map(() => 0)), sizes: size(shape) })),
        ],
      }),
    ),
  ]);
  const places = placed.map(({ name, shape, offset, length }): [Pickled, Pickled] => [
    object(META, "MetadataIndex", attributes({ fqn: name, index: 0, offset: size(shape.map(() => 0)) })),
    object(
      "torch.distributed.checkpoint.filesystem",
      "_StorageInfo",
      attributes({ relative_path: DCP_DATA, offset, length }),
    ),
  ]);
  return pickle(
    object(META, "Metadata", attributes({
      state_dict_metadata: dict(described),
      planner_data: dict(placed.map(({ name }) => [name, tuple(name)])),
      storage_data: dict(places),
      storage_meta: null,
    })),
  );
}
