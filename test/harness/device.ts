import { Device } from "../../core/tensor.ts";

let shared: Device | null = null;

/** One CPU device for all tests of a process. */
export const cpu = (): Device => (shared ??= Device.open({ device: "cpu" }));
