import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";
import { RcmError } from "../error.ts";

const NEWLINE = 0x0a;

/** 1-based line and byte of the first invalid UTF-8 character. */
function placeOf(bytes: Uint8Array): string {
  let line = 1;
  let start = 0;
  const endOf = (from: number): number => (bytes.indexOf(NEWLINE, from) + 1 || bytes.length + 1) - 1;
  for (; isUtf8(bytes.subarray(start, endOf(start))); line++) start = endOf(start) + 1;
  const lineBytes = bytes.subarray(start, endOf(start));
  // Decoding replaces invalid bytes, so the first difference is the place.
  const replaced = new TextEncoder().encode(new TextDecoder("utf-8", { ignoreBOM: true }).decode(lineBytes));
  return `line ${line}, byte ${lineBytes.findIndex((byte, i) => byte !== replaced[i]) + 1}`;
}

/**
 * Reads the prompts of a UTF-8 file, one per line. Ignores a byte order mark, CRLF and blank lines.
 * Throws: E_IO; E_FORMAT for a file without prompts, or naming the position of invalid UTF-8.
 */
export function readPrompts(path: string): string[] {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new RcmError("E_IO", `cannot read ${path}: ${(cause as Error).message}`, { op: "prompts", cause });
  }
  if (!isUtf8(bytes)) {
    throw new RcmError("E_FORMAT", `${path} is not UTF-8 (${placeOf(bytes)}); save it as UTF-8`, { op: "prompts" });
  }
  const text = new TextDecoder("utf-8").decode(bytes);
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  if (lines.length === 0) {
    throw new RcmError("E_FORMAT", `${path} holds no prompt; write one a line`, { op: "prompts" });
  }
  return lines;
}
