import { gpuTier } from "../harness/device.ts";
import { promptEncoderChecks } from "../harness/text_encoder_checks.ts";

const { device, test } = gpuTier();

promptEncoderChecks(device, test);
