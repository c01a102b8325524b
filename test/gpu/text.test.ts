import { gpuTier } from "../harness/device.ts";
import { textOpChecks } from "../harness/text_checks.ts";

const { device, test } = gpuTier();

textOpChecks(device, test);
