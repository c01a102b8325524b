import type { HostTensor } from "../dtype.ts";
import type { WanConfig } from "../models/wan/config.ts";
import type { Device, Tensor } from "../tensor.ts";
import { encodeBytes } from "./bytes.ts";

/** Embeds a prompt for a network: the byte-level encoder of the digits recipes. Shapes: [textLen, textDim] f32. Throws: E_ARG when too long. */
export const encodePrompt = (prompt: string, config: Pick<WanConfig, "textLen" | "textDim">): HostTensor => encodeBytes(prompt, config.textLen, config.textDim);

/** Embeds prompts as a batch. Shapes: [B, textLen, textDim] f32. */
export function encodePrompts(device: Device, prompts: readonly string[], config: Pick<WanConfig, "textLen" | "textDim">): Tensor {
  const out = device.empty([prompts.length, config.textLen, config.textDim], "f32");
  const each = config.textLen * config.textDim;
  const known = new Map<string, HostTensor>();
  prompts.forEach((prompt, b) => {
    const host = known.get(prompt) ?? encodePrompt(prompt, config);
    known.set(prompt, host);
    out.window(b * each, [each]).setHost({ ...host, shape: [each] });
  });
  return out;
}
