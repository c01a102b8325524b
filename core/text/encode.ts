import type { HostTensor } from "../dtype.ts";
import type { TextSpec } from "../models/family.ts";
import type { Device, Tensor } from "../tensor.ts";
import { encodeBytes } from "./bytes.ts";

/** Embeds a prompt for a network: the byte-level encoder of the digits recipes. Shapes: [textLen, textDim] f32. Throws: E_ARG when too long. */
export const encodePrompt = (prompt: string, text: Pick<TextSpec, "length" | "width">): HostTensor => encodeBytes(prompt, text.length, text.width);

/** Embeds prompts as a batch. Shapes: [B, textLen, textDim] f32. */
export function encodePrompts(device: Device, prompts: readonly string[], text: Pick<TextSpec, "length" | "width">): Tensor {
  const out = device.empty([prompts.length, text.length, text.width], "f32");
  const each = text.length * text.width;
  const known = new Map<string, HostTensor>();
  prompts.forEach((prompt, b) => {
    const host = known.get(prompt) ?? encodePrompt(prompt, text);
    known.set(prompt, host);
    out.window(b * each, [each]).setHost({ ...host, shape: [each] });
  });
  return out;
}
