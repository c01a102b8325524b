import { isUtf8 } from "node:buffer";
import type { HostTensor } from "../../dtype.ts";
import { RcmError } from "../../error.ts";
import { eachOnce, truncationReport, type Embedder, type OnTruncated, type TextShape } from "../embedder.ts";

/**
 * The built-in text encoder, without weights. A prompt's UTF-8 bytes become tokens by fixed pseudo-random vectors, so
 * that a small model can distinguish prompts and every machine computes the same bits.
 */

const LAGS = 3;
const POSITION_AMPLITUDE = 0.5;
/** Scales the sum of twelve centred 16-bit uniforms, doubled to be integers, to unit variance. */
const UNIT = 1 / Math.sqrt((12 * (65536 * 65536 - 1)) / 3);

/** Finalizer of MurmurHash3, a bijection of 32-bit integers with good avalanche. */
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** An approximate unit Gaussian: a sum of twelve hashed uniforms (Irwin-Hall), exact but for one multiplication. */
function gaussian(byte: number, lag: number, component: number): number {
  const key = mix(mix(byte * LAGS + lag + 0x51ed270b) ^ component);
  let sum = 0;
  for (let i = 0; i < 6; i++) {
    const word = mix(key + Math.imul(i + 1, 0x9e3779b9));
    sum += 2 * ((word & 0xffff) + (word >>> 16)) - 131070;
  }
  return sum * UNIT;
}

/** Tables by dimension: rows (lag * 256 + byte), dim columns, scaled for a sum over the lags. */
const tables = new Map<number, Float32Array>();

function tableOf(dim: number): Float32Array {
  const known = tables.get(dim);
  if (known) return known;
  const table = new Float32Array(LAGS * 256 * dim);
  const scale = 1 / Math.sqrt(LAGS);
  for (let lag = 0; lag < LAGS; lag++)
    for (let byte = 0; byte < 256; byte++)
      for (let c = 0; c < dim; c++) table[(lag * 256 + byte) * dim + c] = gaussian(byte, lag, c) * scale;
  tables.set(dim, table);
  return table;
}

/** Sine of |x| <= pi by its Taylor series: Math.sin may differ between machines, + and * do not. */
function sine(x: number): number {
  const square = x * x;
  let term = x;
  let sum = x;
  for (let k = 2; k <= 30; k += 2) {
    term *= -square / (k * (k + 1));
    sum += term;
  }
  return sum;
}

function reduced(angle: number): number {
  return angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));
}

const positions = new Map<string, Float32Array>();

/** Rows of sin and cos pairs whose frequencies fall from 1 over about eight octaves, in exact arithmetic. */
function positionsOf(length: number, dim: number): Float32Array {
  const id = `${length}x${dim}`;
  const known = positions.get(id);
  if (known) return known;
  const table = new Float32Array(length * dim);
  const pairs = Math.max(1, Math.ceil(dim / 2));
  for (let c = 0; c < dim; c++) {
    const octave = (8 * (c >> 1)) / pairs;
    const whole = Math.floor(octave);
    const rate = (1 - (octave - whole) / 2) / (1 << whole);
    for (let i = 0; i < length; i++) {
      table[i * dim + c] = POSITION_AMPLITUDE * sine(reduced(i * rate + (c % 2) * (Math.PI / 2)));
    }
  }
  positions.set(id, table);
  return table;
}

/**
 * Encodes a prompt: token i is the unit-variance sum of the vectors of bytes i, i-1 and i-2, plus a position encoding;
 * rows past the text are zero. The first two tokens sum fewer vectors and are scaled up to match.
 * Shapes: f32 [length, dim].
 * Throws: E_ARG if the prompt's UTF-8 bytes exceed length, or a size is not a positive integer.
 */
export function encodeBytes(prompt: string, length: number, dim: number): HostTensor {
  if (!Number.isSafeInteger(length) || length < 1 || !Number.isSafeInteger(dim) || dim < 1)
    throw new RcmError("E_ARG", "a text embedding needs positive whole sizes", {
      op: "encodeBytes",
      want: "length >= 1, dim >= 1",
      got: `${length}, ${dim}`,
    });
  const bytes = new TextEncoder().encode(prompt);
  if (bytes.length > length)
    throw new RcmError("E_ARG", `the prompt is too long: the limit is ${length} bytes of UTF-8`, {
      op: "encodeBytes",
      want: `<= ${length}`,
      got: bytes.length,
    });
  const out = new Float32Array(length * dim);
  if (bytes.length > 0) {
    const table = tableOf(dim);
    const position = positionsOf(length, dim);
    for (let i = 0; i < bytes.length; i++) {
      const lags = Math.min(LAGS, i + 1);
      const scale = Math.sqrt(LAGS / lags);
      for (let c = 0; c < dim; c++) {
        let sum = 0;
        for (let lag = 0; lag < lags; lag++) sum += table[(lag * 256 + bytes[i - lag]) * dim + c];
        out[i * dim + c] = sum * scale + position[i * dim + c];
      }
    }
  }
  return { dtype: "f32", shape: [length, dim], data: new Uint8Array(out.buffer) };
}

/** Truncates UTF-8 to at most `length` bytes at a character boundary. */
function cut(bytes: Uint8Array, length: number): Uint8Array {
  let end = Math.min(length, bytes.length);
  while (!isUtf8(bytes.subarray(0, end))) end--;
  return bytes.subarray(0, end);
}

/**
 * The byte-level encoder as an embedder: each byte is a token, and long prompts are truncated at a character boundary.
 */
export class ByteEmbedder implements Embedder {
  readonly width: number;
  readonly length: number;
  private readonly report: OnTruncated;

  constructor({ width, length }: TextShape, onTruncated?: OnTruncated) {
    this.width = width;
    this.length = length;
    this.report = truncationReport(onTruncated);
  }

  get identity(): string {
    return JSON.stringify({ encoder: "bytes", width: this.width, length: this.length });
  }

  /** Shapes: f32 [bytes, width] each. */
  async embed(prompts: readonly string[]): Promise<HostTensor[]> {
    return eachOnce(prompts, (prompt) => this.rowsOf(prompt));
  }

  private rowsOf(prompt: string): HostTensor {
    const { width, length } = this;
    const bytes = new TextEncoder().encode(prompt);
    const kept = cut(bytes, length);
    this.report({ prompt, tokens: bytes.length, kept: kept.length });
    const { dtype, data } = encodeBytes(new TextDecoder("utf-8", { ignoreBOM: true }).decode(kept), length, width);
    return { dtype, shape: [kept.length, width], data: data.subarray(0, 4 * width * kept.length) };
  }

  [Symbol.dispose](): void {}
}
