import { RcmError } from "../../error.ts";
import { protoFields } from "./protobuf.ts";

/** The fields of a sentencepiece `.model` file that matter for encoding. */
export interface SentencePieceModel {
  pieces: { piece: string; score: number; type: PieceType }[];
  modelType: (typeof MODEL_TYPES)[number];
  byteFallback: boolean;
  whitespaceAsSuffix: boolean;
  /** Normalisation rules, compiled to a double array; empty for none. */
  charsmap: Uint8Array;
  addDummyPrefix: boolean;
  removeExtraWhitespaces: boolean;
  escapeWhitespaces: boolean;
}

const PIECE_TYPES = ["normal", "unknown", "control", "user", "unused", "byte"] as const;
export type PieceType = (typeof PIECE_TYPES)[number];
const MODEL_TYPES = ["unigram", "bpe", "word", "char"] as const;

/** Maximum number of pieces, above that of any published model. */
const MOST_PIECES = 1 << 22;

/** U+2581, which represents a space in pieces. */
const SPACE = "\u2581";

const bad = (what: string, message: string, want?: unknown, got?: unknown): RcmError =>
  new RcmError("E_FORMAT", `${what}: ${message}`, { op: "sentencepiece", want, got });

/** Parses a `.model` file, skipping unknown fields. Throws: E_FORMAT naming what is wrong. */
export function parseSentencePiece(bytes: Uint8Array, what: string): SentencePieceModel {
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  const m: SentencePieceModel = {
    pieces: [], modelType: "unigram", byteFallback: false, whitespaceAsSuffix: false, charsmap: new Uint8Array(0),
    addDummyPrefix: true, removeExtraWhitespaces: true, escapeWhitespaces: true,
  };
  const name = (of: readonly string[], code: number, field: string): never => {
    throw bad(what, `${field} has an unknown code`, of, code);
  };
  for (const part of protoFields(bytes, what)) {
    if (part.wire !== 2) continue;
    if (part.number === 1) {
      if (m.pieces.length === MOST_PIECES) throw bad(what, "holds too many pieces", MOST_PIECES);
      let [piece, score, type]: [string, number, PieceType] = ["", 0, "normal"];
      for (const f of protoFields(part.bytes, what)) {
        if (f.number === 1 && f.wire === 2) {
          try {
            piece = utf8.decode(f.bytes);
          } catch {
            throw bad(what, `piece ${m.pieces.length} is not UTF-8`);
          }
        } else if (f.number === 2 && f.wire === 5) score = f.value;
        else if (f.number === 3 && f.wire === 0)
          type = PIECE_TYPES[f.value - 1] ?? name(PIECE_TYPES, f.value, `the type of piece ${m.pieces.length}`);
      }
      if (piece === "" || !Number.isFinite(score)) {
        throw bad(what, `piece ${m.pieces.length} has no text or no finite score`, undefined, [piece, score]);
      }
      m.pieces.push({ piece, score, type });
    } else if (part.number === 2) {
      for (const f of protoFields(part.bytes, what)) {
        if (f.wire !== 0) continue;
        if (f.number === 3) m.modelType = MODEL_TYPES[f.value - 1] ?? name(MODEL_TYPES, f.value, "the model type");
        else if (f.number === 24) m.whitespaceAsSuffix = f.value !== 0;
        else if (f.number === 35) m.byteFallback = f.value !== 0;
      }
    } else if (part.number === 3) {
      for (const f of protoFields(part.bytes, what)) {
        if (f.number === 2 && f.wire === 2) m.charsmap = f.bytes;
        else if (f.number === 3 && f.wire === 0) m.addDummyPrefix = f.value !== 0;
        else if (f.number === 4 && f.wire === 0) m.removeExtraWhitespaces = f.value !== 0;
        else if (f.number === 5 && f.wire === 0) m.escapeWhitespaces = f.value !== 0;
      }
    }
  }
  return m;
}

const byteOf = (piece: string): number =>
  /^<0x[0-9A-F]{2}>$/.test(piece) ? Number.parseInt(piece.slice(3, 5), 16) : -1;

/** Checks that a tokenizer can be built and returns the index of the unknown piece. Throws: E_FORMAT. */
function checkModel(m: SentencePieceModel, what: string): number {
  if (m.modelType !== "unigram") throw bad(what, "is not a unigram model", "unigram", m.modelType);
  if (m.whitespaceAsSuffix || !m.escapeWhitespaces) {
    throw bad(what, "treats spaces in a way that no published text encoder uses", "escaped, as prefix");
  }
  const unknown = m.pieces.flatMap((p, i) => (p.type === "unknown" ? [i] : []));
  if (unknown.length !== 1) throw bad(what, "does not hold exactly one unknown piece", 1, unknown.length);
  const seen = new Set<string>();
  for (const { piece } of m.pieces) {
    if (seen.has(piece)) throw bad(what, "holds a piece twice", undefined, piece);
    seen.add(piece);
  }
  const bytes = new Set(m.pieces.filter((p) => p.type === "byte").map((p) => byteOf(p.piece)));
  if (m.byteFallback && (bytes.size !== 256 || bytes.has(-1))) {
    throw bad(what, "falls back on bytes without a piece for each", 256, bytes.size);
  }
  const size = m.charsmap.length >= 4 ? new DataView(m.charsmap.buffer, m.charsmap.byteOffset).getUint32(0, true) : 0;
  if (m.charsmap.length > 0 && (size < 1024 || size % 4 !== 0 || size + 4 > m.charsmap.length)) {
    throw bad(what, "has normalisation rules that are cut off", m.charsmap.length, size);
  }
  return unknown[0];
}

/**
 * The same tokenizer as JSON for the `tokenizers` library. The caller adds the dummy prefix (a leading space), as it
 * applies to the whole text and not to each part between special pieces.
 * Throws: E_FORMAT for a model that is not unigram.
 */
export function unigramJson(m: SentencePieceModel, what: string): { json: string; prefix: string } {
  const unknown = checkModel(m, what);
  // An unused piece keeps its id under a name that cannot occur in normalised text.
  const vocab = m.pieces.map(({ piece, score, type }, i) => [type === "unused" ? `\u0000${i}` : piece, score]);
  const special = m.pieces.flatMap(({ piece, type }, id) =>
    type === "control" || type === "user" || type === "unknown"
      ? [
          {
            id,
            content: piece,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: type !== "user",
          },
        ]
      : [],
  );
  const normalizers = [
    ...(m.charsmap.length > 0
      ? [{ type: "Precompiled", precompiled_charsmap: Buffer.from(m.charsmap).toString("base64") }]
      : []),
    ...(m.removeExtraWhitespaces
      ? [
          { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
          { type: "Strip", strip_left: !m.addDummyPrefix, strip_right: true },
        ]
      : []),
    { type: "Replace", pattern: { String: " " }, content: SPACE },
  ];
  // Words can be encoded separately if no piece spans a space.
  const words = m.pieces.every(({ piece }) => piece.lastIndexOf(SPACE) < 1);
  const json = JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special,
    normalizer: { type: "Sequence", normalizers },
    pre_tokenizer: words ? { type: "Metaspace", replacement: SPACE, prepend_scheme: "never", split: true } : null,
    post_processor: null,
    decoder: null,
    model: { type: "Unigram", unk_id: unknown, vocab, byte_fallback: m.byteFallback },
  });
  return { json, prefix: m.addDummyPrefix ? " " : "" };
}
