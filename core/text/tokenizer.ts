import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { RcmError } from "../error.ts";
import { parseSentencePiece, unigramJson } from "./sentencepiece.ts";

/** What this program uses of the `tokenizers` library. */
interface Library {
  encode(text: string, pair: null, options: { addSpecialTokens: boolean }): Promise<{ getIds(): number[] }>;
  idToToken(id: number): string | null;
  tokenToId(token: string): number | null;
  getVocabSize(withAdded: boolean): number;
  disableTruncation(): void;
  disablePadding(): void;
}

/** Longest tokenizer file that is read. */
const MOST_BYTES = 256 << 20;

/** Ids of T5's end of text and padding. */
const END = "</s>";
const PAD = "<pad>";

/** Token ids of one text with its end token, as many as there are. */
export interface Encoded {
  ids: number[];
  /** Tokens of the whole text, end included, before truncation. */
  full: number;
}

/** A tokenizer of the T5 family, from a `tokenizer.json` or a sentencepiece `.model` file. */
export class Tokenizer {
  private constructor(
    private readonly library: Library,
    private readonly prefix: string,
    readonly path: string,
    /** SHA-256 of the file. */
    readonly hash: string,
    readonly end: number,
    readonly pad: number,
  ) {}

  /** Reads a tokenizer; the content, not the name, says which kind it is. Throws: E_IO, E_FORMAT, E_BACKEND when the library does not load. */
  static async open(path: string): Promise<Tokenizer> {
    const bytes = readTokenizer(path);
    const isJson = bytes.find((b) => b > 0x20) === 0x7b;
    const { json, prefix } = isJson ? { json: text(bytes, path), prefix: "" } : unigramJson(parseSentencePiece(bytes, path), path);
    // Loaded only here: the other commands start without it.
    const { Tokenizer: Native } = await import("tokenizers").catch((cause: Error) => {
      throw new RcmError("E_BACKEND", `npm package tokenizers does not load here: ${cause.message}`, { op: "tokenizer", cause });
    });
    let library: Library;
    try {
      library = Native.fromString(json);
    } catch (cause) {
      throw new RcmError("E_FORMAT", `${path}: no tokenizer: ${(cause as Error).message}`, { op: "tokenizer", cause });
    }
    library.disableTruncation();
    library.disablePadding();
    const id = (token: string): number => {
      const found = library.tokenToId(token);
      if (found === null) throw new RcmError("E_FORMAT", `${path}: has no piece ${token}`, { op: "tokenizer", want: [END, PAD] });
      return found;
    };
    return new Tokenizer(library, prefix, path, createHash("sha256").update(bytes).digest("hex"), id(END), id(PAD));
  }

  /** Pieces, added ones included. */
  get size(): number {
    return this.library.getVocabSize(true);
  }

  /** Ids of a text as it stands (not cleaned), at most `length` with the end token. */
  async encode(source: string, length: number): Promise<Encoded> {
    // A lone surrogate is no text: it becomes U+FFFD, as in UTF-8.
    const encoding = await this.library.encode(source === "" ? "" : this.prefix + source.toWellFormed(), null, { addSpecialTokens: false });
    const ids = encoding.getIds();
    return { ids: [...ids.slice(0, length - 1), this.end], full: ids.length + 1 };
  }

  /** The pieces of ids; an id without piece is null. */
  pieces(ids: readonly number[]): (string | null)[] {
    return ids.map((id) => this.library.idToToken(id));
  }
}

function readTokenizer(path: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "tokenizer", cause });
  }
  if (bytes.length === 0 || bytes.length > MOST_BYTES) throw new RcmError("E_FORMAT", `${path}: no tokenizer: wrong size`, { op: "tokenizer", want: `1 to ${MOST_BYTES} bytes`, got: bytes.length });
  return bytes;
}

function text(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new RcmError("E_FORMAT", `${path}: no tokenizer: not UTF-8`, { op: "tokenizer", cause });
  }
}
