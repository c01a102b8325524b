/** Globals of the pickles in torch's files, as "module name". Anything else is refused. */

/**
 * Which globals a pickle may name: `tensors` as torch.save writes them, or the `metadata` of a distributed checkpoint.
 */
export type PickleKind = "tensors" | "metadata";

export const TENSOR_CALLS = [
  "torch._utils _rebuild_tensor",
  "torch._utils _rebuild_tensor_v2",
  "torch._utils _rebuild_tensor_v3",
];
export const PARAMETER = "torch._utils _rebuild_parameter";
export const DICT = "collections OrderedDict";
export const SIZE = "torch Size";
export const STORAGE = /^torch(?:\.storage)? (\w+)Storage$/;
export const DTYPE =
  /^torch (?:b?float\d+\w*|float|half|double|u?int\d+|int|long|short|uint8|bool|complex\d+|strided)$/;
export const KNOWN = new Set([...TENSOR_CALLS, PARAMETER, DICT, SIZE]);

/** Globals in the metadata of a distributed checkpoint: classes are read as data, calls return their only argument. */
const METADATA_MODULES = [
  "checkpoint\\.(?:metadata|filesystem|_fsspec_filesystem|planner)",
  "_shard\\.(?:metadata|sharded_tensor\\.metadata)",
];
export const METADATA_CLASSES = new RegExp(`^torch\\.distributed\\.(?:${METADATA_MODULES.join("|")}) \\w+$`);
const FORMAT_MODULES = "torch\\.distributed\\.(?:checkpoint|_shard\\.sharded_tensor)\\.metadata";
export const METADATA_CALLS = new RegExp(
  `^(?:torch\\.serialization _get_layout|${FORMAT_MODULES} _?MEM_FORMAT_ENCODING)$`,
);
export const PATHS = /^pathlib(?:\._local)? (?:Pure)?(?:Posix|Windows)?Path$/;
export const GETATTR = "builtins getattr";
