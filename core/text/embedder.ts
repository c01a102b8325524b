import { dtypeBytes, hostTensor, hostValues, type DType, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { TextSpec } from "../models/family.ts";
import type { Device, Tensor } from "../tensor.ts";

/** Shape of the text embeddings that a network takes: width and number of rows. */
export type TextShape = Readonly<Pick<TextSpec, "width" | "length">>;

/** Turns prompts into embeddings. Disposing frees its device memory; later use loads the weights again. */
export interface Embedder extends TextShape, Disposable {
  /** Identifies everything but the prompt that an embedding depends on; equal identities give equal embeddings. */
  readonly identity: string;
  /** Shapes: [rows <= length, width] each, without zero padding. */
  embed(prompts: readonly string[]): Promise<HostTensor[]>;
}

/** A prompt that was truncated to the length of the encoder. */
export interface Truncated {
  prompt: string;
  /** Tokens of the whole prompt, and how many of them were embedded. */
  tokens: number;
  kept: number;
}

export type OnTruncated = (t: Truncated) => void;

/** Calls `report` once for each prompt that is truncated. */
export function truncationReport(report: OnTruncated | undefined): OnTruncated {
  const seen = new Set<string>();
  return (t) => {
    if (!report || t.tokens <= t.kept || seen.has(t.prompt)) return;
    seen.add(t.prompt);
    report(t);
  };
}

/** Number of rows up to the last one that is not all zero. Shapes: [rows, width], leading ones allowed. */
export function usedRows({ shape, data }: HostTensor): number {
  const rows = shape.at(-2) ?? 1;
  const each = data.length / rows;
  for (let r = rows; r > 0; r--) if (data.subarray((r - 1) * each, r * each).some((b) => b !== 0)) return r;
  return 0;
}

/** Removes the zero padding of an embedding. Shapes: [rows, width] -> [used, width]. */
export function trimmed({ dtype, shape, data }: HostTensor): HostTensor {
  const [rows, width] = shape;
  const used = rows === 0 ? 0 : usedRows({ dtype, shape, data });
  return { dtype, shape: [used, width], data: data.slice(0, used * width * dtypeBytes(dtype)) };
}

/** Pads an embedding with zero rows to `length`. Shapes: [rows <= length, width] -> [length, width]. */
export function padded(text: HostTensor, length: number, dtype: DType = text.dtype): HostTensor {
  const [rows, width] = text.shape;
  if (text.shape.length !== 2 || rows > length) {
    const want = [length, width];
    throw new RcmError("E_SHAPE", "an embedding is longer than the network's text", {
      op: "text",
      want,
      got: text.shape,
    });
  }
  const { data: used } = dtype === text.dtype ? text : hostTensor(dtype, [rows, width], hostValues(text));
  const data = new Uint8Array(new ArrayBuffer(length * width * dtypeBytes(dtype)));
  data.set(used);
  return { dtype, shape: [length, width], data };
}

/**
 * Embeddings as one zero-padded tensor, in the dtype of the first.
 * Shapes: n of [rows, width] -> [n, length, width].
 */
export function textBatch(device: Device, texts: readonly HostTensor[], { width, length }: TextShape): Tensor {
  const out = device.zeros([texts.length, length, width], texts[0]?.dtype ?? "f32");
  texts.forEach((text, b) => {
    const [rows, columns] = text.shape;
    if (rows > length || columns !== width) {
      const want = [length, width];
      throw new RcmError("E_SHAPE", "a text embedding has another shape", { op: "text", want, got: text.shape });
    }
    if (rows > 0) out.window(b * length * width, text.shape).setHost(text);
  });
  return out;
}

/** Embeddings of prompts, computed once per distinct prompt. */
export function eachOnce(prompts: readonly string[], embed: (prompt: string) => HostTensor): HostTensor[] {
  const known = new Map<string, HostTensor>();
  return prompts.map((prompt) => {
    const text = known.get(prompt) ?? embed(prompt);
    known.set(prompt, text);
    return text;
  });
}

/** Embeddings by prompt. */
export async function embedAll(embedder: Embedder, prompts: readonly string[]): Promise<Map<string, HostTensor>> {
  const unique = [...new Set(prompts)];
  const texts = await embedder.embed(unique);
  return new Map(unique.map((prompt, i) => [prompt, texts[i]]));
}

/** Looks up the embeddings of prompts. Throws: E_INTERNAL for one that was not embedded. */
export const textsOf = (known: ReadonlyMap<string, HostTensor>, prompts: readonly string[]): HostTensor[] =>
  prompts.map((prompt) => {
    const text = known.get(prompt);
    if (!text) throw new RcmError("E_INTERNAL", "a text that was not embedded", { op: "text", got: prompt });
    return text;
  });
