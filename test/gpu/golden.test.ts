import { gpuTier } from "../harness/device.ts";
import { goldenLosses } from "../harness/golden_losses.ts";

const { device, test } = gpuTier();

goldenLosses(device, test);
