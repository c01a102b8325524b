import type { DType, HostTensor } from "../dtype.ts";
import { RcmError } from "../error.ts";
import type { TextEncoderNet } from "../models/text_encoder.ts";
import { sampleReduce, type Device } from "../tensor.ts";
import { loadEncoder, type EncoderLoadReport } from "../weights/encoder.ts";
import { cleanPrompt } from "./clean.ts";
import { eachOnce, truncationReport, type Embedder, type OnTruncated } from "./embedder.ts";
import { weightsIdentity } from "./identity.ts";
import { Tokenizer } from "./tokenizers/tokenizer.ts";

/** Files of a text encoder. */
export interface EncoderFiles {
  /** Weight file or folder, in any public layout. */
  weights: string;
  /** tokenizer.json or sentencepiece .model. */
  tokenizer: string;
  /** Folder that caches embeddings between runs; null: none. */
  cache: string | null;
}

export interface EncoderOptions {
  /** Rows of an embedding. */
  length: number;
  /** Width that the network takes; null: that of the encoder. */
  width?: number | null;
  /** dtype of weights and embeddings; the published ones are bf16. */
  dtype?: DType;
  /** Called when the weights have been loaded. */
  onLoad?: (report: EncoderLoadReport) => void;
  /** Called while they load, with the bytes so far and in total. */
  onProgress?: (done: number, total: number) => void;
  onTruncated?: OnTruncated;
}

/** Ids of one prompt. */
export interface TokenizedPrompt {
  prompt: string;
  clean: string;
  ids: number[];
  /** Tokens before truncation, the end token included. */
  full: number;
}

/** Version of prompt cleaning and graph, which the other parts of an identity do not cover. */
const CACHE_VERSION = 1;

/**
 * Tokens are padded to a multiple of this, so that few matrix shapes occur; padding does not change a bit of the
 * result.
 */
const GRAIN = 16;

/**
 * Embeds prompts with a text encoder network: cleaning, tokenization, forward pass. Each prompt runs alone, so its
 * embedding does not depend on the others. The weights are loaded for the first prompt and freed on dispose.
 */
export class NetworkEmbedder implements Embedder {
  /** Prompts that were encoded, and those found in the cache. */
  readonly counts = { encoded: 0, cached: 0 };
  readonly length: number;
  readonly dtype: DType;
  private loaded: TextEncoderNet | null = null;
  private weights: string | null = null;
  private readonly report: OnTruncated;

  private constructor(
    readonly device: Device,
    readonly tokenizer: Tokenizer,
    private readonly files: EncoderFiles,
    private readonly o: EncoderOptions,
  ) {
    this.length = o.length;
    this.dtype = o.dtype ?? "bf16";
    this.report = truncationReport(o.onTruncated);
  }

  /** Reads the tokenizer; the weights load on first use. Throws: E_IO, E_FORMAT, E_ARG. */
  static open(device: Device, files: EncoderFiles, o: EncoderOptions): NetworkEmbedder {
    if (!Number.isSafeInteger(o.length) || o.length < 1) {
      const message = "an embedding needs a positive number of rows";
      throw new RcmError("E_ARG", message, { op: "text encoder", got: o.length });
    }
    return new NetworkEmbedder(device, Tokenizer.open(files.tokenizer), files, o);
  }

  get width(): number {
    return this.o.width ?? this.network().config.dim;
  }

  /** Everything but the prompt that an embedding depends on, by name. */
  get parts(): Record<string, string | number> {
    const { files, tokenizer, length, dtype } = this;
    const weights = (this.weights ??= weightsIdentity(files.weights, files.cache));
    return { version: CACHE_VERSION, weights, tokenizer: tokenizer.hash, length, dtype };
  }

  get identity(): string {
    return JSON.stringify(this.parts);
  }

  /** The weights, read on first use. */
  private network(): TextEncoderNet {
    if (this.loaded) return this.loaded;
    const { files, o, tokenizer } = this;
    const { encoder, report } = loadEncoder(this.device, files.weights, {
      dtype: this.dtype,
      onProgress: o.onProgress,
    });
    const { vocab, dim } = encoder.config;
    try {
      if (tokenizer.size > vocab) {
        const message = `${tokenizer.path} has more pieces than the encoder ${files.weights} has rows`;
        throw new RcmError("E_FORMAT", message, { op: "text encoder", want: vocab, got: tokenizer.size });
      }
      if (dim !== (o.width ?? dim)) {
        const message = `the embeddings of ${files.weights} are not as wide as the network's text`;
        throw new RcmError("E_SHAPE", message, { op: "text encoder", want: o.width, got: dim });
      }
    } catch (error) {
      encoder[Symbol.dispose]();
      throw error;
    }
    o.onLoad?.(report);
    return (this.loaded = encoder);
  }

  tokenize(prompt: string): TokenizedPrompt {
    const clean = cleanPrompt(prompt);
    const { ids, full } = this.tokenizer.encode(clean, this.length);
    this.report({ prompt, tokens: full, kept: ids.length });
    return { prompt, clean, ids, full };
  }

  /** Whether cached rows fit a prompt: one per token, of the right width. */
  fits({ shape: [rows, width] }: HostTensor, { ids }: TokenizedPrompt): boolean {
    return rows === ids.length && width === (this.o.width ?? this.loaded?.config.dim ?? width);
  }

  /** Shapes: [n, width] each. Throws: E_NONFINITE naming the prompt; E_SHAPE, E_IO, E_FORMAT. */
  async embed(prompts: readonly string[]): Promise<HostTensor[]> {
    return eachOnce(prompts, (prompt) => this.run(this.tokenize(prompt)));
  }

  /** Shapes: n tokens -> [n, width]. */
  run({ prompt, ids }: TokenizedPrompt): HostTensor {
    const network = this.network();
    const { device } = this;
    using _scope = device.scope();
    const n = ids.length;
    const L = Math.ceil(n / GRAIN) * GRAIN;
    const filled = Int32Array.from({ length: L }, (_, i) => ids[i] ?? this.tokenizer.pad);
    const y = network.forward(device.fromValues(filled, [1, L], "i32"), device.fromValues([n], [1], "i32"));
    const D = network.config.dim;
    const kept = y.window(0, [n, D]);
    const bad = sampleReduce(kept.view([1, n * D]), "nonfinite")[0];
    if (bad > 0) {
      const message = `the embedding of "${prompt.slice(0, 60)}" holds ${bad} values that are not finite`;
      throw new RcmError("E_NONFINITE", message, { op: "text encoder", got: this.dtype });
    }
    this.counts.encoded++;
    return kept.toHost();
  }

  /** Frees the weights on the device. */
  [Symbol.dispose](): void {
    this.loaded?.[Symbol.dispose]();
    this.loaded = null;
    this.device.trim();
  }
}
