import { extname } from "node:path";
import { dtypeBytes, numel, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { readSafetensors } from "../io/safetensors.ts";
import { readTorch, readTorchTensors, isHostTensor } from "../io/torch.ts";
import type { Device, Tensor } from "../tensor.ts";

/** Rows and width of a network's text. */
export interface TextShape {
  textLen: number;
  textDim: number;
}

/** Rows before the zeros at the end. */
function usedRows({ data, shape: [rows, width], dtype }: HostTensor): number {
  const each = width * dtypeBytes(dtype);
  for (let r = rows; r > 0; r--) if (data.subarray((r - 1) * each, r * each).some((b) => b !== 0)) return r;
  return 0;
}

/** Text embeddings on the host, without the zeros behind each text: a prompt costs what it says. */
export class TextStore {
  private readonly known = new Map<string, HostTensor>();

  constructor(readonly shape: TextShape) {}

  has(key: string): boolean {
    return this.known.has(key);
  }

  /** Shapes: [rows <= textLen, textDim]. Throws: E_SHAPE. */
  put(key: string, text: HostTensor): void {
    const { textLen, textDim } = this.shape;
    const [rows, width] = text.shape;
    if (text.shape.length !== 2 || rows > textLen || width !== textDim) {
      throw new RcmError("E_SHAPE", "a text embedding has another shape", { op: "embeds", want: [textLen, textDim], got: text.shape });
    }
    const used = usedRows(text);
    const data = text.data.slice(0, used * width * dtypeBytes(text.dtype));
    this.known.set(key, { dtype: text.dtype, shape: [used, width], data });
  }

  /** Stores each sample of a batch. Shapes: [B, M, D]. */
  putAll(keys: readonly string[], texts: Tensor): void {
    const [, M, D] = texts.shape;
    keys.forEach((key, b) => this.put(key, texts.window(b * M * D, [M, D]).toHost()));
  }

  /** The texts as a batch in the network's dtype. Shapes: -> [B, textLen, textDim]. */
  batch(device: Device, keys: readonly string[]): Tensor {
    const { textLen, textDim } = this.shape;
    const first = this.known.get(keys[0]);
    const out = device.zeros([keys.length, textLen, textDim], first?.dtype ?? "f32");
    keys.forEach((key, b) => {
      const text = this.known.get(key);
      if (!text) throw new RcmError("E_INTERNAL", "a text that was not encoded", { op: "embeds", got: key });
      if (text.shape[0] > 0) out.window(b * textLen * textDim, text.shape).setHost(text);
    });
    return out;
  }
}

/** One text embedding, or several, of a .pt, .pth or .safetensors file. Shapes: [M, D], or [n, M, D] -> n of [M, D]. Throws: E_FORMAT. */
export function readEmbeds(path: string): HostTensor[] {
  let found: HostTensor[];
  if (extname(path) === ".safetensors") found = [...readSafetensors(path).tensors.values()];
  else {
    const value = readTorch(path);
    found = isHostTensor(value) ? [value] : [...readTorchTensors(path).values()];
  }
  if (found.length !== 1) throw new RcmError("E_FORMAT", `${path} does not hold one tensor`, { op: "embeds", got: found.length });
  const [{ dtype, shape, data }] = found;
  const [n, M, D] = shape.length === 2 ? [1, ...shape] : shape;
  if (shape.length < 2 || shape.length > 3 || numel(shape) === 0) throw new RcmError("E_FORMAT", `${path} is no text embedding`, { op: "embeds", want: "[tokens, width] or [n, tokens, width]", got: shape });
  const each = numel([M, D]) * dtypeBytes(dtype);
  return Array.from({ length: n }, (_, i) => ({ dtype, shape: [M, D], data: data.subarray(i * each, (i + 1) * each) }));
}
