import type { Device } from "../tensor.ts";
import { beside, noise, rate, timeCalls, type BenchRow, type TimeOptions } from "./time.ts";

/** Bytes of the copy that counts as the bandwidth of a device: far beyond its caches. */
const CEILING_BYTES = { cpu: 2 ** 28, cuda: 2 ** 30 };

/** Times one copy within the device; every byte is counted once read and once written. */
function copy(device: Device, bytes: number, o: TimeOptions): BenchRow {
  using _scope = device.scope();
  const count = Math.ceil(bytes / 4);
  const [from, to] = [noise(device, [count], "f32", 1), noise(device, [count], "f32", 2)];
  const ms = timeCalls(device, () => device.lib.copy(to.ptr, from.ptr, from.bytes, 2), o);
  return { name: "copy", shape: `${(from.bytes / 2 ** 20).toFixed(from.bytes < 2 ** 20 ? 2 : 0)} MiB`, ms, ...rate({ bytes: 2 * from.bytes }, ms) };
}

/** Copies of several sizes beside the largest one's rate, or beside a given ceiling, GB/s. */
export function benchCopy(device: Device, sizes: readonly number[], ceiling: number | null, o: TimeOptions): BenchRow[] {
  const top = ceiling ?? copyCeiling(device, o);
  return sizes.map((bytes) => beside(copy(device, bytes, o), top));
}

/** The bandwidth that elementwise work is compared with, GB/s. */
export const copyCeiling = (device: Device, o: TimeOptions): number => copy(device, CEILING_BYTES[device.backend.kind], o).gbs as number;
