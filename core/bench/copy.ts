import type { Device } from "../tensor.ts";
import { beside, noise, rate, timeCalls, timeRecorded, type BenchRow, type TimeOptions } from "./time.ts";

/** Bytes of the copy that counts as the bandwidth of a device: far beyond its caches. */
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

/** Copies of several sizes beside the largest one's rate, or beside a given ceiling, GB/s. */
export function benchCopy(
  device: Device,
  sizes: readonly number[],
  ceiling: number | null,
  o: TimeOptions,
): BenchRow[] {
  const top = ceiling ?? copyCeiling(device, o);
  return sizes.map((bytes) => beside(copy(device, bytes, o), top));
}

/** Calls that move less are mostly launches. */
const SMALL = 2 ** 26;

/**
 * Times a call that moves `bytes`, read or written, and what it is compared with, GB/s: the copy rate of the device, or for a small call that
 * of a copy that moves as much; both are then timed in a recording.
 */
export function timeBesideCopy(
  device: Device,
  call: () => void,
  bytes: number,
  ceiling: number,
  o: TimeOptions,
): { ms: number; ceiling: number } {
  if (bytes >= SMALL) return { ms: timeCalls(device, call, o), ceiling };
  return {
    ms: timeRecorded(device, call, o),
    ceiling: copy(device, Math.max(4, bytes / 2), o, timeRecorded).gbs as number,
  };
}

/** The bandwidth that elementwise work is compared with, GB/s. */
export const copyCeiling = (device: Device, o: TimeOptions): number =>
  copy(device, CEILING_BYTES[device.backend.kind], o).gbs as number;
