import { dtypeBytes, type DType, type HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import { TEXT_LENGTH, type TextEncoderNet } from "../models/text_encoder.ts";
import { sampleReduce, type Device, type Tensor } from "../tensor.ts";
import { cleanPrompt } from "./clean.ts";
import { Tokenizer } from "./tokenizers/tokenizer.ts";
import { PromptCache } from "./cache.ts";
import { loadEncoder, type EncoderLoadReport } from "../weights/encoder.ts";

export interface PromptEncoderOptions {
  /** Weight file or folder, in Wan's or transformers' layout. */
  weights: string;
  /** tokenizer.json or sentencepiece .model. */
  tokenizer: string;
  /** Folder of embeddings made before; null: none. */
  cache: string | null;
  /** Storage of weights and embeddings; the published ones are bf16. */
  dtype?: DType;
  /** Rows of an embedding. */
  length?: number;
  /** Called when the weights have been read. */
  onLoad?: (report: EncoderLoadReport) => void;
  /** Called as they are read: bytes so far, bytes in all. */
  onProgress?: (done: number, total: number) => void;
}

/** Ids of one prompt. */
export interface TokenizedPrompt {
  prompt: string;
  clean: string;
  ids: number[];
  /** Tokens before truncation, the end token included. */
  full: number;
}

/** Version of what an entry depends on besides its key's parts: cleaning, graph. */
const CACHE_VERSION = 1;

/** Tokens are padded to a multiple of this, so that few matrix shapes occur; padding changes no bit of what a prompt gives. */
const GRAIN = 16;

/**
 * Prompts to embeddings: cleaning, tokens, umT5, rows past a prompt's length zero. Each prompt runs alone, so an embedding does not depend
 * on which prompts it is asked for with. Weights are read on the first prompt that is not cached.
 */
export class PromptEncoder implements Disposable {
  private loaded: TextEncoderNet | null = null;
  private identity: string | null = null;
  /** Prompts encoded by the network, and taken from the cache. */
  readonly counts = { encoded: 0, cached: 0 };

  private constructor(
    readonly device: Device,
    readonly tokenizer: Tokenizer,
    private readonly cache: PromptCache | null,
    private readonly o: PromptEncoderOptions,
    readonly dtype: DType,
    readonly length: number,
  ) {}

  /** Reads the tokenizer; the weights wait. Throws: E_IO, E_FORMAT, E_ARG. */
  static open(device: Device, o: PromptEncoderOptions): PromptEncoder {
    const length = o.length ?? TEXT_LENGTH;
    if (!Number.isSafeInteger(length) || length < 1) throw new RcmError("E_ARG", "an embedding needs a positive number of rows", { op: "text encoder", got: length });
    const tokenizer = Tokenizer.open(o.tokenizer);
    return new PromptEncoder(device, tokenizer, o.cache === null ? null : new PromptCache(o.cache), o, o.dtype ?? "bf16", length);
  }

  /** The weights, read from the file when this is first asked for. */
  private network(): TextEncoderNet {
    if (this.loaded) return this.loaded;
    const { encoder, report } = loadEncoder(this.device, this.o.weights, { dtype: this.dtype, onProgress: this.o.onProgress });
    if (this.tokenizer.size > encoder.config.vocab) {
      encoder[Symbol.dispose]();
      throw new RcmError("E_FORMAT", `${this.tokenizer.path} has more pieces than the encoder ${this.o.weights} has rows`, { op: "text encoder", want: encoder.config.vocab, got: this.tokenizer.size });
    }
    this.o.onLoad?.(report);
    return (this.loaded = encoder);
  }

  tokenize(prompt: string): TokenizedPrompt {
    const clean = cleanPrompt(prompt);
    const { ids, full } = this.tokenizer.encode(clean, this.length);
    return { prompt, clean, ids, full };
  }

  /** Embeds prompts. Shapes: [B, length, D] of the encoder's dtype, rows past each prompt's tokens zero. Throws: E_NONFINITE naming the prompt. */
  encode(prompts: readonly string[]): Tensor {
    const rows = this.rows(prompts);
    const D = rows[0]?.shape[1] ?? this.network().config.dim;
    const out = this.device.zeros([prompts.length, this.length, D], this.dtype);
    rows.forEach((host, b) => out.window(b * this.length * D, host.shape).setHost(host));
    return out;
  }

  /** The rows of each prompt that are not padding; a prompt given twice is encoded once. Shapes: [n, D] each. */
  rows(prompts: readonly string[]): HostTensor[] {
    const known = new Map<string, HostTensor>();
    return prompts.map((prompt) => {
      const rows = known.get(prompt) ?? this.rowsOf(prompt);
      known.set(prompt, rows);
      return rows;
    });
  }

  private rowsOf(prompt: string): HostTensor {
    const t = this.tokenize(prompt);
    if (!this.cache) return this.run(t);
    this.identity ??= this.cache.weightsIdentity(this.o.weights);
    const key = this.cache.key({ version: CACHE_VERSION, weights: this.identity, tokenizer: this.tokenizer.hash, prompt: t.clean, length: this.length, dtype: this.dtype });
    const known = this.cache.read(key, this.loaded?.config.dim ?? null);
    if (known && known.dtype === this.dtype && known.shape[0] === t.ids.length) {
      this.counts.cached++;
      return known;
    }
    const made = this.run(t);
    this.cache.write(key, made, { prompt: t.clean, tokens: String(t.ids.length) });
    return made;
  }

  private run({ prompt, ids }: TokenizedPrompt): HostTensor {
    const network = this.network();
    const { device } = this;
    using _scope = device.scope();
    const n = ids.length;
    const L = Math.ceil(n / GRAIN) * GRAIN;
    const padded = Int32Array.from({ length: L }, (_, i) => ids[i] ?? this.tokenizer.pad);
    const y = network.forward(device.fromValues(padded, [1, L], "i32"), device.fromValues([n], [1], "i32"));
    const D = network.config.dim;
    const kept = y.window(0, [n, D]);
    const bad = sampleReduce(kept.view([1, n * D]), "nonfinite")[0];
    if (bad > 0) throw new RcmError("E_NONFINITE", `the embedding of "${prompt.slice(0, 60)}" holds ${bad} values that are not finite`, { op: "text encoder", got: this.dtype });
    this.counts.encoded++;
    return kept.toHost();
  }

  /** Frees the weights on the device; they are read again when needed. */
  release(): void {
    this.loaded?.[Symbol.dispose]();
    this.loaded = null;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** The embedding of one prompt without padding, as the public data have it: rows up to `length` are zero. Shapes: rows [n, D] -> [length, D]. */
export function padRows(rows: HostTensor, length: number): HostTensor {
  const [, D] = rows.shape;
  const data = new Uint8Array(new ArrayBuffer(length * D * dtypeBytes(rows.dtype)));
  data.set(rows.data);
  return { dtype: rows.dtype, shape: [length, D], data };
}
