import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { RcmError } from "../../error.ts";
import { parseSentencePiece, unigramJson } from "./sentencepiece.ts";
import { unigramOf, type Unigram } from "./unigram.ts";

/** Maximum size of a tokenizer file. */
const MOST_BYTES = 256 << 20;

/** T5's end of text and padding. */
const END = "</s>";
const PAD = "<pad>";

/** Token ids of one text, with the end token and without padding. */
export interface Encoded {
  ids: number[];
  /** Tokens of the whole text, end included, before truncation. */
  full: number;
}

/** Added tokens, which are matched in the text before normalisation. */
interface Added {
  id: number;
  content: string;
  lstrip: boolean;
  rstrip: boolean;
}

/** The parts of the `tokenizers` library that are used: normaliser and pre-tokenizer. */
interface Front {
  normalize(text: string): string;
  split(text: string): string[];
}

interface Parts {
  path: string;
  hash: string;
  size: number;
  /** Prefix of every text. */
  prefix: string;
  front: Front;
  model: Unigram;
  added: readonly Added[];
}

/** A unigram tokenizer of the T5 family, from a `tokenizer.json` or a sentencepiece `.model` file. */
export class Tokenizer {
  private readonly added: Map<string, Added>;
  private readonly finder: RegExp | null;

  readonly path: string;
  /** SHA-256 of the file. */
  readonly hash: string;
  /** Number of ids. */
  readonly size: number;
  private readonly prefix: string;
  private readonly front: Front;
  private readonly model: Unigram;

  private constructor({ path, hash, size, prefix, front, model, added }: Parts) {
    this.path = path;
    this.hash = hash;
    this.size = size;
    this.prefix = prefix;
    this.front = front;
    this.model = model;
    this.added = new Map(added.map((a) => [a.content, a]));
    const escaped = [...added]
      .sort((a, b) => b.content.length - a.content.length)
      .map(
        (a) => `${a.lstrip ? "\\s*" : ""}${a.content.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}${a.rstrip ? "\\s*" : ""}`,
      );
    this.finder = escaped.length > 0 ? new RegExp(`(${escaped.join("|")})`, "u") : null;
  }

  /**
   * Reads a tokenizer; its format is detected from the content.
   * Throws: E_IO, E_FORMAT, E_BACKEND when the library does not load.
   */
  static open(path: string): Tokenizer {
    const bytes = readTokenizer(path);
    const isJson = bytes.find((b) => b > 0x20) === 0x7b;
    const { json, prefix } = isJson
      ? { json: utf8(bytes, path), prefix: "" }
      : unigramJson(parseSentencePiece(bytes, path), path);
    let parsed: unknown;
    try {
      parsed = JSON.parse(json);
    } catch (cause) {
      throw new RcmError("E_FORMAT", `${path}: no tokenizer: ${(cause as Error).message}`, { op: "tokenizer", cause });
    }
    const model = unigramOf(parsed, path);
    const added = addedOf(parsed, path);
    const { front, size } = openFront(json, path);
    const hash = createHash("sha256").update(bytes).digest("hex");
    const t = new Tokenizer({ path, hash, size, prefix, front, model, added });
    void [t.end, t.pad];
    return t;
  }

  private special(token: string): number {
    const id = this.added.get(token)?.id ?? this.model.idOf(token);
    if (id === undefined) {
      throw new RcmError("E_FORMAT", `${this.path}: has no piece ${token}`, { op: "tokenizer", want: [END, PAD] });
    }
    return id;
  }
  get end(): number {
    return this.special(END);
  }
  get pad(): number {
    return this.special(PAD);
  }

  /** Ids of a text, which is not cleaned here; at most `length` including the end token. */
  encode(text: string, length: number): Encoded {
    // A lone surrogate becomes U+FFFD, as in UTF-8.
    const source = text === "" ? "" : this.prefix + text.toWellFormed();
    const ids: number[] = [];
    // Splitting by a capturing group returns the matches at odd indices.
    (this.finder ? source.split(this.finder) : [source]).forEach((part, i) => {
      if (i % 2 === 1) ids.push((this.added.get(part) ?? (this.added.get(part.trim()) as Added)).id);
      else if (part !== "")
        for (const word of this.front.split(this.front.normalize(part))) ids.push(...this.model.encode(word));
    });
    return { ids: [...ids.slice(0, length - 1), this.end], full: ids.length + 1 };
  }

  /** The pieces of ids; null for an unknown id. */
  pieces(ids: readonly number[]): (string | null)[] {
    return ids.map(
      (id) => this.model.pieceOf(id) ?? [...this.added.values()].find((a) => a.id === id)?.content ?? null,
    );
  }
}

function openFront(json: string, path: string): { front: Front; size: number } {
  let library: typeof import("tokenizers");
  try {
    // Loaded lazily, so that other commands start without it.
    library = require("tokenizers");
  } catch (cause) {
    throw new RcmError("E_BACKEND", `npm package tokenizers does not load here: ${(cause as Error).message}`, {
      op: "tokenizer",
      cause,
    });
  }
  try {
    const native = library.Tokenizer.fromString(json);
    const [normalizer, splitter] = [native.getNormalizer(), native.getPreTokenizer()];
    const front: Front = {
      normalize: (text) => (normalizer ? normalizer.normalizeString(text) : text),
      split: (text) => (splitter ? splitter.preTokenizeString(text).map(([word]) => word) : [text]),
    };
    return { front, size: native.getVocabSize(true) };
  } catch (cause) {
    throw new RcmError("E_FORMAT", `${path}: no tokenizer: ${(cause as Error).message}`, { op: "tokenizer", cause });
  }
}

function addedOf(json: unknown, path: string): Added[] {
  const list = (json as Record<string, unknown>).added_tokens ?? [];
  if (!Array.isArray(list)) throw new RcmError("E_FORMAT", `${path}: added_tokens is not a list`, { op: "tokenizer" });
  return list.map((entry: unknown, i) => {
    const {
      id,
      content,
      lstrip,
      rstrip,
      single_word: single,
    } = (typeof entry === "object" && entry !== null ? entry : {}) as Record<string, unknown>;
    if (
      !Number.isSafeInteger(id) ||
      (id as number) < 0 ||
      typeof content !== "string" ||
      content === "" ||
      single === true
    ) {
      throw new RcmError("E_FORMAT", `${path}: added token ${i} is of no known kind`, {
        op: "tokenizer",
        want: "id, content, not single_word",
        got: entry,
      });
    }
    return { id: id as number, content, lstrip: lstrip === true, rstrip: rstrip === true };
  });
}

function readTokenizer(path: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "tokenizer", cause });
  }
  if (bytes.length === 0 || bytes.length > MOST_BYTES) {
    throw new RcmError("E_FORMAT", `${path}: no tokenizer: wrong size`, {
      op: "tokenizer",
      want: `1 to ${MOST_BYTES} bytes`,
      got: bytes.length,
    });
  }
  return bytes;
}

function utf8(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new RcmError("E_FORMAT", `${path}: no tokenizer: not UTF-8`, { op: "tokenizer", cause });
  }
}
