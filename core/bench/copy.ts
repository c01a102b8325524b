import type { Device } from "../tensor.ts";
import {
  compared,
  noise,
  rate,
  timeCalls,
  timeRecorded,
  type BenchRow,
  type BenchSetting,
  type TimeOptions,
} from "./time.ts";

/** Bytes of the copy that measures the bandwidth of a device: far larger than its caches. */
const CEILING_BYTES = { cpu: 2 ** 28, cuda: 2 ** 30 };

/** Times one copy within the device; every byte is counted once read and once written. */
function copy(device: Device, bytes: number, o: TimeOptions, time = timeCalls): BenchRow {
  using _scope = device.scope();
  const count = Math.ceil(bytes / 4);
  const [from, to] = [noise(device, [count], "f32", 1), noise(device, [count], "f32", 2)];
  const ms = time(device, () => void to.set(from), o);
  return {
    name: "copy",
    shape: `${(from.bytes / 2 ** 20).toFixed(from.bytes < 2 ** 20 ? 2 : 0)} MiB`,
    ms,
    ...rate({ bytes: 2 * from.bytes }, ms),
  };
}

/** Copies of several sizes, compared with the rate of a very large one or with a given ceiling, GB/s. */
export function benchCopy({ device, timing, ceiling }: BenchSetting, sizes: readonly number[]): BenchRow[] {
  const top = ceiling ?? copyCeiling(device, timing);
  return sizes.map((bytes) => compared(copy(device, bytes, timing), top));
}

/** Calls that move less than this are dominated by launch latency. */
const SMALL = 2 ** 26;

/**
 * Times a call that reads and writes `bytes` in all, and finds the rate to compare it with, GB/s: the ceiling, or for a
 * small call the rate of a copy of the same size; both are then timed in a graph.
 */
export function timeAgainstCopy(
  { device, timing, ceiling }: BenchSetting,
  call: () => void,
  bytes: number,
): { ms: number; ceiling: number | null } {
  if (bytes >= SMALL) return { ms: timeCalls(device, call, timing), ceiling };
  return {
    ms: timeRecorded(device, call, timing),
    ceiling: copy(device, Math.max(4, bytes / 2), timing, timeRecorded).gbs as number,
  };
}

/** The bandwidth that elementwise work is compared with, GB/s. */
export const copyCeiling = (device: Device, o: TimeOptions): number =>
  copy(device, CEILING_BYTES[device.backend.kind], o).gbs as number;
