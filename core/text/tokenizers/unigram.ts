import { RcmError } from "../../error.ts";

/** Score of an unknown character, relative to the lowest score of a piece. */
const UNKNOWN_PENALTY = 10;

/**
 * The unigram model: the most probable segmentation of a word into pieces, by dynamic programming (Viterbi).
 * Source: subword regularization (arXiv 1804.10959), section 3.2; scores, ties and unknown characters as in the
 * `tokenizers` library, against which it is tested; that library only has an asynchronous interface.
 */
export class Unigram {
  private readonly ids = new Map<string, number>();
  private readonly longest: number;
  private readonly unknownScore: number;
  /** Ids of the pieces `<0x00>` to `<0xFF>`; null: unknown characters become the unknown piece. */
  private readonly bytes: number[] | null;

  constructor(
    private readonly vocab: readonly (readonly [piece: string, score: number])[],
    readonly unknown: number,
    byteFallback: boolean,
  ) {
    let [longest, least] = [0, Number.POSITIVE_INFINITY];
    vocab.forEach(([piece, score], id) => {
      this.ids.set(piece, id);
      longest = Math.max(longest, piece.length);
      least = Math.min(least, score);
    });
    this.longest = longest;
    this.unknownScore = least - UNKNOWN_PENALTY;
    const bytes = Array.from({ length: 256 }, (_, b) =>
      this.ids.get(`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`),
    );
    this.bytes = byteFallback && bytes.every((id) => id !== undefined) ? (bytes as number[]) : null;
  }

  /** Ids of one word. Consecutive unknown characters become one unknown piece. */
  encode(word: string): number[] {
    const n = word.length;
    const from = new Int32Array(n + 1).fill(-1);
    const id = new Int32Array(n + 1);
    const score = new Float64Array(n + 1);
    const offer = (start: number, end: number, piece: number, gain: number): void => {
      const total = score[start] + gain;
      if (from[end] >= 0 && total <= score[end]) return;
      [from[end], id[end], score[end]] = [start, piece, total];
    };
    for (let start = 0; start < n; ) {
      const next = start + ((word.codePointAt(start) as number) > 0xffff ? 2 : 1);
      const last = Math.min(n, start + this.longest);
      let single = false;
      for (let end = next; end <= last; end++) {
        // Do not split a surrogate pair.
        if ((word.charCodeAt(end) & 0xfc00) === 0xdc00) continue;
        const piece = this.ids.get(word.slice(start, end));
        if (piece === undefined) continue;
        offer(start, end, piece, this.vocab[piece][1]);
        single ||= end === next;
      }
      if (!single) offer(start, next, this.unknown, this.unknownScore);
      start = next;
    }
    const out: number[] = [];
    for (let end = n; end > 0; ) {
      let start = from[end];
      if (id[end] !== this.unknown) out.push(id[end]);
      else {
        while (start > 0 && id[start] === this.unknown) start = from[start];
        if (this.bytes)
          for (const b of new TextEncoder().encode(word.slice(start, end)).reverse()) out.push(this.bytes[b]);
        else out.push(this.unknown);
      }
      end = start;
    }
    return out.reverse();
  }

  idOf(piece: string): number | undefined {
    return this.ids.get(piece);
  }
  pieceOf(id: number): string | null {
    return this.vocab[id]?.[0] ?? null;
  }
}

/** Builds the model from a parsed tokenizer.json. Throws: E_FORMAT naming what is missing or invalid. */
export function unigramOf(json: unknown, what: string): Unigram {
  const bad = (message: string, want?: unknown, got?: unknown): RcmError =>
    new RcmError("E_FORMAT", `${what}: ${message}`, { op: "tokenizer", want, got });
  const model = typeof json === "object" && json !== null ? (json as Record<string, unknown>).model : undefined;
  if (typeof model !== "object" || model === null) throw bad("no tokenizer: it has no model");
  const { type, vocab, unk_id: unknown, byte_fallback: bytes } = model as Record<string, unknown>;
  if (type !== undefined && type !== "Unigram") throw bad("is not a unigram tokenizer", "Unigram", type);
  const valid = (entry: unknown): boolean =>
    Array.isArray(entry) &&
    entry.length === 2 &&
    typeof entry[0] === "string" &&
    entry[0] !== "" &&
    Number.isFinite(entry[1]);
  if (!Array.isArray(vocab) || vocab.length === 0 || !vocab.every(valid)) {
    throw bad("its vocabulary is not a list of pieces with scores");
  }
  if (!Number.isInteger(unknown) || (unknown as number) < 0 || (unknown as number) >= vocab.length) {
    throw bad("names no unknown piece", `0 to ${vocab.length - 1}`, unknown);
  }
  return new Unigram(vocab as [string, number][], unknown as number, bytes === true);
}
