import { gpuTier } from "../harness/device.ts";
import { promptEncoderChecks } from "../harness/text_encoder_checks.ts";
import { textOpChecks } from "../harness/text_checks.ts";

const { device, test } = gpuTier();

textOpChecks(device, test);
promptEncoderChecks(device, test);
