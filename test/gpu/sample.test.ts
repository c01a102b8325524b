import { gpuTier } from "../harness/device.ts";
import { pixelChecks } from "../harness/pixels.ts";
import { streamedChecks } from "../harness/streamed.ts";

const { device, test } = gpuTier();

streamedChecks(device, test, true);
pixelChecks(device, test);
