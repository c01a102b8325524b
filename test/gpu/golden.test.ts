import { gpuTier } from "../harness/device.ts";
import { goldenAttention } from "../harness/golden_attention.ts";
import { goldenDit } from "../harness/golden_dit.ts";
import { goldenLosses } from "../harness/golden_losses.ts";

const { device, test } = gpuTier();

goldenAttention(device, test);
goldenDit(device, test);
goldenLosses(device, test);
